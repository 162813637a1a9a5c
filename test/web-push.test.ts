import { afterAll, afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, statSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { ownCertificate } from "../src/access/certificate.ts";
import { serverId } from "../src/adapters/server-key.ts";
import { scratch, testApp } from "./support/app.ts";
import { Client } from "./support/client.ts";
import { authorize, tryKey } from "./support/log-in.ts";
import { claimsOf, PushDevice } from "./support/push-device.ts";
import { Receiver } from "./support/receiver.ts";
import { ServerProcess } from "./support/server-process.ts";
import { type LabKey, SshLab } from "./support/ssh-lab.ts";

setDefaultTimeout(60_000);

const lab = new SshLab();
afterAll(() => lab[Symbol.dispose]());
const laptop = lab.key("ed25519");
const tablet = lab.key("ed25519");
const secured = { PA_AUTH_MODE: "ssh", PA_INSECURE: "true" };

let stack: AsyncDisposableStack;
let home: string;
let service: Receiver;
let server: ServerProcess;
let client: Client;
let project_id: string;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  home = await scratch(stack);
  await mkdir(join(home, "data"), { mode: 0o700 });
  await mkdir(join(home, "shop"));
  await authorize(join(home, "data"), laptop.line, tablet.line);
  const certsDir = join(home, "push-service");
  serverId(certsDir);
  service = stack.use(new Receiver(await ownCertificate({ certsDir, now: new Date() })));
  await serve();
  client = await connect(laptop);
  project_id = await client.create(join(home, "shop"));
});
afterEach(() => stack.disposeAsync());

async function serve(): Promise<void> {
  const settings = {
    ...secured,
    NODE_EXTRA_CA_CERTS: join(home, "push-service", "server.crt"),
    PA_NOTIFY_PUSH_SERVICES: service.url.host,
  };
  server = stack.use(await ServerProcess.start({ home, settings }));
}

async function connect(key: LabKey): Promise<Client> {
  const connected = stack.use(await Client.connect(server.url));
  await tryKey(connected, key);
  return connected;
}

async function subscribe(by: Client): Promise<PushDevice> {
  const device = new PushDevice(service.url);
  await by.expect("push_subscribed", "push_subscribe", { data: device.subscription });
  return device;
}

const publicKey = async () =>
  (await client.expect("push_key_response", "push_key")).data.public_key;
const onDisk = () => readFileSync(join(home, "data", "devices.json"), "utf8");

test("a device reads what it is told, signed by the server's key, and nobody else can", async () => {
  const key = await publicKey();
  const device = await subscribe(client);
  await client.expect("project_state", "execute", {
    project_id,
    data: { prompt: `tool:Bash:{"command":"make"}` },
  });
  const { data: request } = await client.next("permission_request");
  const received = await service.next();
  expect(device.read(received)).toEqual({
    event: "needs_input",
    project_id,
    permission_id: request.permission_id,
    title: "shop needs you",
    body: "The agent wants to use Bash",
    url: `/#/projects/${project_id}/${request.permission_id}`,
  });
  expect(() => new PushDevice(service.url).read(received)).toThrow();
  expect(device.has(received)).toBeTrue();
  const { headers } = received;
  expect({ ttl: headers.get("ttl"), urgency: headers.get("urgency") }).toEqual({
    ttl: "86400",
    urgency: "high",
  });
  const claims = claimsOf(received, key);
  expect(claims).toMatchObject({ aud: service.url.origin, sub: "mailto:pocket-agent@example.com" });
  const left = Number(claims["exp"]) - Date.now() / 1000;
  expect(left).toBeWithin(60, 24 * 3600);
  await client.expect("permission_resolved", "permission_response", {
    project_id,
    data: { permission_id: request.permission_id, decision: "allow" },
  });
  const end = await service.next();
  expect(device.read(end)).toMatchObject({ event: "finished", title: "shop is done" });
  expect(end.headers.get("urgency")).toBe("normal");
});

test("key and subscription are the owner's alone, and outlive the server", async () => {
  const key = await publicKey();
  expect(Buffer.from(key, "base64url")).toHaveLength(65);
  const device = await subscribe(client);
  for (const name of ["push.key", "devices.json"])
    expect(statSync(join(home, "data", name)).mode & 0o777).toBe(0o600);
  await server.crash();
  await serve();
  client = await connect(laptop);
  expect(await publicKey()).toBe(key);
  await client.run(project_id, "say:x");
  const received = await service.next();
  expect(device.read(received)).toMatchObject({ event: "finished" });
  expect(claimsOf(received, key)).toMatchObject({ aud: service.url.origin });
});

test("each device is told once, however many connections it has, and only the newest subscription", async () => {
  await subscribe(client);
  const again = await connect(laptop);
  const newest = await subscribe(again);
  const other = await subscribe(await connect(tablet));
  await client.run(project_id, "say:x");
  await client.run(project_id, "error:y");
  const all = [
    await service.next(),
    await service.next(),
    await service.next(),
    await service.next(),
  ];
  const read = (device: PushDevice) =>
    all.filter((at) => device.has(at)).map((at) => device.read(at));
  for (const device of [newest, other])
    expect(read(device)).toMatchObject([{ event: "finished" }, { event: "failed" }]);
  expect(service.received).toHaveLength(4);
});

test("nobody is told while one of them has the project in view", async () => {
  const device = await subscribe(client);
  const other = await connect(tablet);
  await other.expect("project_joined", "project_join", { project_id });
  await other.expect("project_viewed", "project_view", { project_id, data: { visible: true } });
  await client.run(project_id, "say:x");
  await other.expect("project_viewed", "project_view", { project_id, data: { visible: false } });
  await client.run(project_id, "error:y");
  expect(device.read(await service.next())).toMatchObject({ event: "failed" });
});

test("who unsubscribes, or is revoked, is forgotten at once, what is to be tried again included", async () => {
  const first = client.received.find((frame) => frame.type === "auth_success");
  const token = first?.data.token;
  const gone = await subscribe(client);
  const second = await connect(tablet);
  const revoked = await subscribe(second);
  expect(onDisk()).toContain(gone.endpoint);
  await client.expect("push_unsubscribed", "push_unsubscribe");
  expect(onDisk()).not.toContain(gone.endpoint);
  const audit = readFileSync(join(home, "data", "audit.jsonl"), "utf8");
  expect(audit).toContain(`"event":"push_subscribed"`);
  expect(audit).toContain(`"service":"${service.url.host}"`);
  expect(audit).toContain(`"event":"push_unsubscribed"`);
  expect(`${audit}${server.log}`).not.toContain(gone.endpoint);
  service.answer({ status: 503, headers: { "retry-after": "1" } });
  await client.run(project_id, "say:x");
  expect(revoked.has(await service.next())).toBeTrue();
  await client.expect("device_revoked", "device_revoke", {
    data: { device_id: tablet.fingerprint },
  });
  expect(onDisk()).not.toContain(revoked.endpoint);
  const headers = { authorization: `Bearer ${token}` };
  const metrics = new URL("/metrics", server.url);
  const given = `pocket_agent_notifications_total{channel="webpush",outcome="gone"} 1`;
  while (!(await (await fetch(metrics, { headers })).text()).includes(given)) await Bun.sleep(20);
  const kept = await subscribe(client);
  await client.run(project_id, "error:y");
  expect(kept.read(await service.next())).toMatchObject({ event: "failed" });
  expect(service.received).toHaveLength(2);
});

test.each([404, 410])(
  "a subscription that the service answers with %d is forgotten",
  async (status) => {
    const first = await subscribe(client);
    service.answer({ status });
    await client.run(project_id, "say:x");
    await service.next();
    while (onDisk().includes(first.endpoint)) await Bun.sleep(5);
    await client.run(project_id, "say:y");
    const second = await subscribe(client);
    await client.run(project_id, "error:z");
    expect(second.read(await service.next())).toMatchObject({ event: "failed" });
    expect(service.received).toHaveLength(2);
    await server.stop();
    expect(server.log).not.toContain("cannot deliver");
    expect(server.log).not.toContain(second.endpoint);
  },
);

test("only what a browser's push service would take is accepted", async () => {
  const { subscription } = new PushDevice(service.url);
  const { endpoint, keys } = subscription;
  const offCurve = Buffer.alloc(65, 1);
  offCurve[0] = 4;
  const wrong = [
    { endpoint: endpoint.replace("https", "http"), keys },
    { endpoint: "https://example.com/x", keys },
    { endpoint: "https://127.0.0.1/x", keys },
    { endpoint: "https://fcm.googleapis.com.example.com/x", keys },
    { endpoint: "https://evilpush.apple.com/x", keys },
    { endpoint: "https://127.0.0.1;.push.apple.com/x", keys },
    { endpoint: "https://fcm.googleapis.com:8443/x", keys },
    { endpoint: "https://fcm.googleapis.com@example.com/x", keys },
    { endpoint: "https://me:pw@fcm.googleapis.com/x", keys },
    { endpoint: endpoint.replace(service.url.port, "1"), keys },
    { endpoint: "fcm.googleapis.com", keys },
    { endpoint, keys: { ...keys, auth: "AAAA" } },
    { endpoint, keys: { ...keys, p256dh: keys.p256dh.slice(1) } },
    { endpoint, keys: { ...keys, p256dh: offCurve.toString("base64url") } },
    { endpoint, keys: { ...keys, p256dh: `C${keys.p256dh.slice(1)}` } },
  ];
  for (const data of wrong)
    // oxlint-disable-next-line no-await-in-loop -- in order
    expect(await client.ask("push_subscribe", { data })).toMatchObject({
      type: "error",
      data: { code: "INVALID_MESSAGE" },
    });
  for (const host of [
    "fcm.googleapis.com",
    "updates.push.services.mozilla.com",
    "web.push.apple.com",
    "wns2-par02p.notify.windows.com",
  ])
    // oxlint-disable-next-line no-await-in-loop -- in order
    await client.expect("push_subscribed", "push_subscribe", {
      data: { endpoint: `https://${host}/x`, keys },
    });
  // Where a device is notified is told to nobody: the contract has no room for it.
  await client.expect("device_list_response", "device_list");
  await client.expect("push_unsubscribed", "push_unsubscribe");
});

test("a device of scope read may look and be notified; who is no device may not be", async () => {
  await using app = await testApp({ PA_AUTH_MODE: "ssh" });
  const { devices, tokens } = app.app.access;
  const added = await devices.add({ name: "glasses", scope: "read", key: null, kind: "token" });
  const { token } = await tokens.issue(added.id, null);
  const reader = await app.client();
  await reader.expect("auth_success", "auth_token", { data: { token } });
  await reader.expect("push_key_response", "push_key");
  const { subscription } = new PushDevice(new URL("https://web.push.apple.com/"));
  await reader.expect("push_subscribed", "push_subscribe", { data: subscription });
  expect(devices.get(added.id)?.push).toEqual(subscription);
  await reader.expect("push_unsubscribed", "push_unsubscribe");

  await using open = await testApp();
  const nobody = await open.client();
  await nobody.expect("push_key_response", "push_key");
  for (const [type, rest] of [
    ["push_subscribe", { data: subscription }],
    ["push_unsubscribe", {}],
  ] as const)
    // oxlint-disable-next-line no-await-in-loop -- in order
    expect(await nobody.ask(type, rest)).toMatchObject({
      data: { code: "INVALID_MESSAGE", message: expect.stringContaining("no device") },
    });
});
