import { afterAll, describe, expect, test } from "bun:test";
import { rmSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { loginText } from "../src/access/challenge.ts";
import type { Scope } from "../src/contract/messages.ts";
import { clientMessages } from "../src/contract/messages.ts";
import { scratch, testApp, type TestApp } from "./support/app.ts";
import { agentsOf } from "./support/agents.ts";
import { Reader } from "./support/cli.ts";
import type { Client, Frame } from "./support/client.ts";
import { authorize, bindingOf, expectedMac, tryKey, tryPairing } from "./support/log-in.ts";
import { opcodes, RawSocket } from "./support/raw-socket.ts";
import { SshLab } from "./support/ssh-lab.ts";
import { canMount, tightFileSystem } from "./support/tight-disk.ts";

const lab = new SshLab();
afterAll(() => lab[Symbol.dispose]());
const owner = lab.key("ed25519");
const stranger = lab.key("ed25519");

const ladder = { interruptMs: 500, inputMs: 500, terminateMs: 200 };
const secured = { PA_AUTH_MODE: "ssh", PA_TLS_ENABLED: "true", PA_INSECURE: "false" };

/** A server as it is without configuration, which lets the owner's key in. */
async function lockedApp(settings: Readonly<Record<string, string>> = {}): Promise<TestApp> {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  await mkdir(join(home, "data"), { mode: 0o700 });
  await authorize(join(home, "data"), owner.line);
  const folder = stack.move();
  const app = await testApp({ ...secured, ...settings }, { home, ladder });
  const dispose = app[Symbol.asyncDispose];
  return {
    ...app,
    async [Symbol.asyncDispose]() {
      await dispose();
      await folder.disposeAsync();
    },
  };
}

/** A new device of some scope, by its token. */
async function device(app: TestApp, scope: Scope, name: string = scope) {
  const { devices, tokens } = app.app.access;
  const { id } = await devices.add({ name, scope, key: null, kind: "token" });
  return { id, token: (await tokens.issue(id, null)).token };
}

async function enter(app: TestApp, token: string): Promise<Client> {
  const client = await app.client();
  await client.expect("auth_success", "auth_token", { data: { token } });
  return client;
}

/** As a proxy would say whom it speaks for. */
const from = (address: string) => ({ headers: { "X-Forwarded-For": address } });

describe("before the login", () => {
  test("there is hello, and every message is UNAUTHORIZED without effect", async () => {
    await using app = await lockedApp({ PA_LIMITS_MESSAGE_RATE: "1000" });
    const client = await app.client();
    const others = Object.keys(clientMessages).filter(
      (type): type is keyof typeof clientMessages => !type.startsWith("auth_"),
    );
    for (const type of others)
      for (const data of [undefined, null, {}, { path: app.home }, "text", 1]) {
        // oxlint-disable-next-line no-await-in-loop -- in order
        const reply = await client.ask(type, { project_id: "p", data });
        expect(reply).toMatchObject({ type: "error", data: { code: "UNAUTHORIZED" } });
      }
    expect(client.received.filter(({ type }) => type !== "hello" && type !== "error")).toEqual([]);
    const inside = await enter(app, (await device(app, "full")).token);
    const { data } = await inside.expect("project_list_response", "project_list");
    expect(data.projects).toEqual([]);
  });

  test("hello says how to log in", async () => {
    await using app = await lockedApp();
    const client = await app.client();
    const again = await app.client();
    const { challenge } = bindingOf(client);
    expect(Buffer.from(challenge, "base64")).toHaveLength(32);
    expect(bindingOf(again).challenge).not.toBe(challenge);
    expect(client.received[0]?.data).toMatchObject({
      server: { id: app.app.access.certificate?.fingerprint },
      auth: { required: true, methods: ["ssh", "token", "pair"] },
    });
  });

  test("a client that waits is closed 4401 at auth.timeout, one that logged in is not", async () => {
    await using app = await lockedApp({ PA_AUTH_TIMEOUT: "300ms" });
    const inside = await app.client();
    expect(await tryKey(inside, owner)).toMatchObject({ type: "auth_success" });
    const waiting = await app.client();
    expect((await waiting.closed).code).toBe(4401);
    expect(await inside.ask("ping")).toMatchObject({ type: "pong" });
  });

  test("a frame over 16 KiB closes 1009, and not after it", async () => {
    await using app = await lockedApp();
    const client = await app.client();
    client.socket.send(JSON.stringify({ type: "auth_token", data: { token: "x".repeat(16_384) } }));
    expect((await client.closed).code).toBe(1009);
    const inside = await app.client();
    await tryKey(inside, owner);
    const reply = await inside.ask("project_create", { data: { path: "/".repeat(20_000) } });
    expect(reply).toMatchObject({ type: "error", data: { code: "INVALID_MESSAGE" } });
  });

  test("the ninth stranger of an address makes the oldest go", async () => {
    await using app = await lockedApp();
    const inside = await enter(app, (await device(app, "read")).token);
    const strangers: Client[] = [];
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    for (let count = 0; count < 9; count += 1) strangers.push(await app.client());
    expect((await strangers[0]?.closed)?.code).toBe(4401);
    expect(await strangers[1]?.ask("ping")).toMatchObject({ data: { code: "UNAUTHORIZED" } });
    expect(await inside.ask("ping")).toMatchObject({ type: "pong" });
  });

  test.each([
    ["loopback", (count: number) => ({ localAddress: `127.3.${count}.1` })],
    ["one network", (count: number) => from(`198.51.100.${count}`)],
    ["one network of IPv6", (count: number) => from(`2001:db8:1:${count.toString(16)}::1`)],
  ])(
    "strangers of %s make room among themselves, however many addresses they have",
    async (_, at) => {
      await using app = await lockedApp({
        PA_TLS_ENABLED: "false",
        PA_SERVER_TRUSTED_PROXIES: "127.0.0.1",
      });
      using one = await RawSocket.open(app.url, from("192.0.2.7"));
      await using stack = new AsyncDisposableStack();
      for (let count = 0; count < 40; count += 1)
        // oxlint-disable-next-line no-await-in-loop -- one after the other
        stack.use(await RawSocket.open(app.url, at(count)));
      one.send(opcodes.text, JSON.stringify({ type: "ping" }));
      await one.until(() => one.count(opcodes.text) === 2);
      expect(one.count(opcodes.close)).toBe(0);
    },
  );

  test("whom the terminal is asked about never has to make room", async () => {
    await using app = await lockedApp();
    const asked = Promise.withResolvers<void>();
    const decided = Promise.withResolvers<boolean>();
    const confirm = async () => {
      asked.resolve();
      return await decided.promise;
    };
    const { code } = app.app.access.pairing.open({
      scope: "read",
      confirm,
      ended: () => undefined,
    });
    const reply = tryPairing(await app.client(), { key: stranger, code, name: "phone" });
    await asked.promise;
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    for (let count = 0; count < 10; count += 1) await app.client();
    decided.resolve(true);
    expect(await reply).toMatchObject({ type: "auth_success" });
  });
});

describe("a key", () => {
  test("that is authorized lets in, as a device of its fingerprint with the scope full", async () => {
    await using app = await lockedApp();
    const client = await app.client();
    const { type, data } = await tryKey(client, owner);
    expect(type).toBe("auth_success");
    expect(data).toMatchObject({
      device: { id: owner.fingerprint, name: "a comment", scope: "full" },
      token: expect.stringMatching(/^pat_/),
    });
    const id = await client.create(await app.directory());
    await client.expect("project_state", "execute", { project_id: id, data: { prompt: "say:a" } });
    const { data: prompt } = await client.next("user_message");
    expect(prompt.device).toEqual({ id: owner.fingerprint, name: "a comment" });
  });

  test("that is not is UNAUTHORIZED, as is a wrong signature; the third closes 4401", async () => {
    await using app = await lockedApp();
    const client = await app.client();
    const other = await app.client();
    const unknown = await tryKey(client, stranger);
    const signature = stranger.sign("something else");
    const wrong = await client.ask("auth_response", {
      data: { public_key: owner.line, signature },
    });
    expect(unknown.data).toEqual(wrong.data);
    expect(wrong).toMatchObject({ type: "error", data: { code: "UNAUTHORIZED" } });
    expect(await tryKey(client, stranger)).toMatchObject({ data: { code: "UNAUTHORIZED" } });
    expect((await client.closed).code).toBe(4401);
    expect(await tryKey(other, owner)).toMatchObject({ type: "auth_success" });
  });

  test("'s signature for one connection is none for another", async () => {
    await using app = await lockedApp();
    const [first, second] = [await app.client(), await app.client()];
    const signature = owner.sign(loginText(bindingOf(first)));
    const data = { public_key: owner.line, signature };
    expect(await first.ask("auth_response", { data })).toMatchObject({ type: "auth_success" });
    const replayed = await second.ask("auth_response", { data });
    expect(replayed).toMatchObject({ type: "error", data: { code: "UNAUTHORIZED" } });
  });

  test("that its file no longer has ends its connections and tokens", async () => {
    await using app = await lockedApp();
    const client = await app.client();
    const { data } = await tryKey(client, owner);
    await Bun.write(join(app.dataDir, "authorized_keys"), `${stranger.line}\n`);
    expect((await client.closed).code).toBe(4403);
    const later = await app.client();
    const token = "token" in data ? data.token : "";
    expect(await later.ask("auth_token", { data: { token } })).toMatchObject({
      data: { code: "UNAUTHORIZED" },
    });
    expect(await tryKey(later, stranger)).toMatchObject({ type: "auth_success" });
  });
});

describe("a token", () => {
  test("lets in again, and is answered with itself", async () => {
    await using app = await lockedApp();
    const first = await app.client();
    const { data } = await tryKey(first, owner);
    const token = "token" in data ? data.token : "";
    const second = await app.client();
    const { data: again } = await second.expect("auth_success", "auth_token", { data: { token } });
    expect(again).toMatchObject({ token, device: { id: owner.fingerprint } });
  });

  test("that is none is UNAUTHORIZED", async () => {
    await using app = await lockedApp();
    const client = await app.client();
    const reply = await client.ask("auth_token", { data: { token: `pat_${"A".repeat(43)}` } });
    expect(reply).toMatchObject({ type: "error", data: { code: "UNAUTHORIZED" } });
  });

  test("serves requests that were sent right behind it", async () => {
    await using app = await lockedApp();
    const { token } = await device(app, "read");
    const client = await app.client();
    client.send("auth_token", { data: { token } });
    expect(await client.ask("project_list")).toMatchObject({ type: "project_list_response" });
  });

  test("works 16 times at once for a device, and no more", async () => {
    await using app = await lockedApp();
    const { token } = await device(app, "read");
    const clients: Client[] = [];
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    for (let count = 0; count < 16; count += 1) clients.push(await enter(app, token));
    const more = await app.client();
    expect(await more.ask("auth_token", { data: { token } })).toMatchObject({
      type: "error",
      data: { code: "RESOURCE_LIMIT" },
    });
    clients[0]?.socket.close();
    await clients[0]?.closed;
    expect(await more.ask("auth_token", { data: { token } })).toMatchObject({
      type: "auth_success",
    });
  });
});

test("who has logged in, and from where, is in the list of devices", async () => {
  await using app = await lockedApp();
  const watcher = await enter(app, (await device(app, "full")).token);
  const { id, token } = await device(app, "read");
  const listed = async () => {
    const { data } = await watcher.expect("device_list_response", "device_list");
    return data.devices.find((one) => one.id === id);
  };
  expect(await listed()).toMatchObject({ last_seen: null, address: null, connected: false });
  await enter(app, token);
  const found = await listed();
  expect(found).toMatchObject({ address: "127.0.0.1", connected: true });
  expect(Date.parse(found?.last_seen ?? "")).toBeWithin(Date.now() - 60_000, Date.now() + 1);
});

describe("pairing", () => {
  const phone = lab.key("ecdsa", 256);

  test("makes a device of whoever has the code, tells the others, and it can log in", async () => {
    await using app = await lockedApp();
    const watcher = await enter(app, (await device(app, "full")).token);
    const reader = await enter(app, (await device(app, "read")).token);
    const { pairing } = app.app.access;
    const seen: unknown[] = [];
    const confirm = async (candidate: unknown) => seen.push(candidate) > 0;
    const { code } = pairing.open({ scope: "approve", confirm, ended: () => undefined });
    const client = await app.client();
    const attempt = { key: phone, code, name: "My phone" };
    const reply = await tryPairing(client, attempt);
    expect(reply).toMatchObject({
      type: "auth_success",
      data: {
        device: { name: "My phone", scope: "approve" },
        server_mac: expectedMac(client, attempt),
      },
    });
    expect(seen).toMatchObject([{ name: "My phone", digits: expect.stringMatching(/^\d{6}$/) }]);
    const { data } = await watcher.next("device_added");
    expect(data).toMatchObject({ name: "My phone", kind: "paired", scope: "approve" });
    await reader.ask("ping");
    expect(reader.received.some(({ type }) => type === "device_added")).toBe(false);
    const later = await app.client();
    expect(await tryKey(later, phone)).toMatchObject({
      type: "auth_success",
      data: { device: { scope: "approve" } },
    });
  });

  test("makes nobody else of a connection that somebody has logged in on meanwhile", async () => {
    await using app = await lockedApp();
    const asked = Promise.withResolvers<void>();
    const decided = Promise.withResolvers<boolean>();
    const confirm = async () => {
      asked.resolve();
      return await decided.promise;
    };
    const terms = { scope: "read", confirm, ended: () => undefined } as const;
    const { code } = app.app.access.pairing.open(terms);
    const client = await app.client();
    const pairing = tryPairing(client, { key: phone, code, name: "phone" });
    await asked.promise;
    const { token } = await device(app, "full");
    await client.expect("auth_success", "auth_token", { data: { token } });
    decided.resolve(true);
    expect(await pairing).toMatchObject({ type: "error", data: { code: "INVALID_MESSAGE" } });
    await client.expect("device_list_response", "device_list");
    // It has been let in all the same, and can come on a connection of its own.
    expect(await tryKey(await app.client(), phone)).toMatchObject({ type: "auth_success" });
  });

  test("is refused with a wrong code, without one, and when the terminal says no", async () => {
    await using app = await lockedApp();
    const { pairing } = app.app.access;
    const client = await app.client();
    const refused = { type: "error", data: { code: "UNAUTHORIZED" } };
    const code = Buffer.alloc(16);
    expect(await tryPairing(client, { key: phone, code, name: "p" })).toMatchObject(refused);
    pairing.open({ scope: "full", confirm: async () => true, ended: () => undefined });
    expect(await tryPairing(client, { key: phone, code, name: "p" })).toMatchObject(refused);
    const other = await app.client();
    const { code: right } = pairing.open({
      scope: "full",
      confirm: async () => false,
      ended: () => undefined,
    });
    const declined = await tryPairing(other, { key: phone, code: right, name: "p" });
    expect(declined).toMatchObject(refused);
    expect(await tryKey(other, phone)).toMatchObject(refused);
  });
});

describe("a scope", () => {
  test("approve may choose among what is offered, and nothing else", async () => {
    await using app = await lockedApp();
    const full = await enter(app, (await device(app, "full")).token);
    const approve = await enter(app, (await device(app, "approve")).token);
    const project_id = await full.create(await app.directory());
    await approve.expect("project_joined", "project_join", { project_id });
    const options = [{ label: "A" }, { label: "B" }];
    const questions = [
      { question: "One?", options },
      { question: "Some?", multiSelect: true, options },
    ];
    const prompt = `tool:AskUserQuestion:${JSON.stringify({ questions })}`;
    await full.expect("project_state", "execute", { project_id, data: { prompt } });
    const { permission_id } = (await approve.next("permission_request")).data;
    const choose = (answers: object) =>
      approve.ask("permission_response", {
        project_id,
        data: {
          permission_id,
          decision: "allow",
          answers: { "One?": "A", "Some?": "B", ...answers },
        },
      });
    for (const wrong of ["C", "", "a", "A, B", [], ["A", "B"], ["A", "A"], ["C"]])
      // oxlint-disable-next-line no-await-in-loop -- one after the other reads better
      expect(await choose({ "One?": wrong })).toMatchObject({ data: { code: "FORBIDDEN" } });
    for (const wrong of ["C", [], ["A", "C"], ["A", "B", "A"]])
      // oxlint-disable-next-line no-await-in-loop -- as above
      expect(await choose({ "Some?": wrong })).toMatchObject({ data: { code: "FORBIDDEN" } });
    const right = await choose({ "One?": ["A"], "Some?": ["B", "A"] });
    expect(right).toMatchObject({ type: "permission_resolved", data: { decision: "allow" } });
  });

  test("read may look, and nothing else", async () => {
    await using app = await lockedApp();
    const full = await enter(app, (await device(app, "full")).token);
    const read = await enter(app, (await device(app, "read")).token);
    const project_id = await full.create(await app.directory());
    await read.expect("project_joined", "project_join", { project_id });
    await full.run(project_id, "say:hello");
    await read.next("agent_message");
    const data = { prompt: "say:no" };
    const reply = await read.ask("execute", { project_id, data });
    expect(reply).toMatchObject({ type: "error", data: { code: "FORBIDDEN" } });
  });
});

/** Two devices, one of them lost, for each of which an agent has run a prompt to its end. */
async function twoAtWork(app: TestApp, prompt: string) {
  const full = await enter(app, (await device(app, "full", "owner")).token);
  const { id, token } = await device(app, "full", "lost");
  const lost = await enter(app, token);
  const own = await full.create(await app.directory());
  await full.run(own, prompt);
  const agents = (await agentsOf(app.home)).map(({ pid }) => pid);
  const project_id = await lost.create(await app.directory());
  await full.expect("project_joined", "project_join", { project_id });
  await lost.run(project_id, prompt);
  return { full, id, own, project_id, agents };
}

describe("revoking a device", () => {
  test("ends its connections, tokens, queued prompts and run", async () => {
    await using app = await lockedApp();
    const full = await enter(app, (await device(app, "full", "owner")).token);
    const { id, token } = await device(app, "full", "lost");
    const [one, two] = [await enter(app, token), await enter(app, token)];
    const project_id = await full.create(await app.directory());
    await full.expect("project_joined", "project_join", { project_id });
    await one.expect("project_state", "execute", { project_id, data: { prompt: "hang" } });
    await one.expect("execution_queued", "execute", {
      project_id,
      data: { prompt: "say:later", queue: true },
    });
    await full.expect("execution_queued", "execute", {
      project_id,
      data: { prompt: "say:mine", queue: true },
    });
    const reply = await full.expect("device_revoked", "device_revoke", {
      data: { device_id: id },
    });
    expect(reply.data).toEqual({ device_id: id });
    expect((await one.closed).code).toBe(4403);
    expect((await two.closed).code).toBe(4403);
    const cancelled = await full.next("execution_cancelled");
    expect(cancelled.data.reason).toBe("its device was revoked");
    const later = await app.client();
    expect(await later.ask("auth_token", { data: { token } })).toMatchObject({
      data: { code: "UNAUTHORIZED" },
    });
    const { data } = await full.expect("device_list_response", "device_list");
    expect(data.devices.map(({ name }) => name).toSorted()).toEqual(["a comment", "owner"]);
  });

  test("sends nothing more to a client that does not hang up", async () => {
    await using app = await lockedApp({ PA_TLS_ENABLED: "false" });
    const full = await enter(app, (await device(app, "full", "owner")).token);
    const { id, token } = await device(app, "read", "lost");
    const project_id = await full.create(await app.directory());
    using raw = await RawSocket.open(app.url);
    raw.send(opcodes.text, JSON.stringify({ type: "auth_token", data: { token } }));
    raw.send(opcodes.text, JSON.stringify({ type: "project_join", project_id }));
    const isThere = () => raw.received.some(({ payload }) => payload.includes("caught_up"));
    await raw.until(isThere);
    const data = { prompt: "stream:2000:1" };
    await full.expect("project_state", "execute", { project_id, data });
    await raw.until(() => raw.count(opcodes.text) > 50);
    await full.expect("device_revoked", "device_revoke", { data: { device_id: id } });
    await raw.ended;
    expect(raw.received.at(-1)?.opcode).toBe(opcodes.close);
    expect(await raw.closeCode()).toBe(4403);
  });

  test("ends what its last run has left in the background, and nobody else's", async () => {
    await using app = await lockedApp();
    const prompt = "child:sleep 300\nbackground:600000:say:done";
    const { full, id, agents } = await twoAtWork(app, prompt);
    await full.expect("device_revoked", "device_revoke", { data: { device_id: id } });
    expect((await agentsOf(app.home)).map(({ pid }) => pid)).toEqual(agents);
  });

  test("ends a turn that its agent has begun by itself", async () => {
    await using app = await lockedApp();
    const { full, id, project_id, agents } = await twoAtWork(app, "background:100:hang");
    const unsolicited = ({ data }: Frame<"project_state">) =>
      data.id === project_id && data.state === "EXECUTING" && data.usage.runs === 1;
    await full.next("project_state", unsolicited);
    await full.expect("device_revoked", "device_revoke", { data: { device_id: id } });
    expect((await agentsOf(app.home)).map(({ pid }) => pid)).toEqual(agents);
    const killed = ({ data }: Frame<"project_state">) =>
      data.id === project_id && data.state === "IDLE" && data.usage.runs === 2;
    await full.next("project_state", killed);
  });

  test("ends no agent that has gone on to work for somebody else", async () => {
    await using app = await lockedApp();
    const { full, id, project_id } = await twoAtWork(app, "say:hello");
    const data = { prompt: "hang" };
    await full.expect("project_state", "execute", { project_id, data });
    await full.expect("device_revoked", "device_revoke", { data: { device_id: id } });
    const { data: list } = await full.expect("project_list_response", "project_list");
    expect(list.projects.map(({ state }) => state)).toEqual(["IDLE", "EXECUTING"]);
    await full.expect("project_state", "agent_kill", { project_id });
  });

  test("does not let it resume a session that was being looked up", async () => {
    await using app = await lockedApp();
    const full = await enter(app, (await device(app, "full", "owner")).token);
    const { id, token } = await device(app, "full", "lost");
    const lost = await enter(app, token);
    const project_id = await full.create(await app.directory());
    const { session_id } = await full.run(project_id, "say:hello");
    await full.expect("session_reset", "agent_new_session", { project_id });
    // The CLI's record of a terminal, which is not read to its end before this says so.
    const record = join(app.home, ".claude", "sessions", "1.json");
    await mkdir(dirname(record), { recursive: true });
    expect(Bun.spawnSync(["mkfifo", record]).exitCode).toBe(0);
    const script = `exec 3> '${record}'; echo read; read line`;
    await using writer = Bun.spawn(["sh", "-c", script], { stdin: "pipe", stdout: "pipe" });
    lost.send("session_resume", { project_id, data: { session_id } });
    await new Reader(writer.stdout).until("read");
    await full.expect("device_revoked", "device_revoke", { data: { device_id: id } });
    rmSync(record);
    await writer.stdin.end();
    await writer.exited;
    // Nothing may begin before the session is found or not.
    let reply;
    do reply = await full.ask("execute", { project_id, data: { prompt: "say:mine" } });
    while (reply.type === "error");
    const state = await full.settled(project_id, Number(Object(reply.data).last_seq));
    expect(state.session_id).toBeString();
    expect(state.session_id).not.toBe(session_id);
  });

  test.if(canMount())(
    "ends its run on a full disk too, where nothing can be cancelled",
    async () => {
      await using stack = new AsyncDisposableStack();
      const home = await scratch(stack);
      const disk = stack.use(tightFileSystem(join(home, "data")));
      const settings = {
        ...secured,
        PA_LIMITS_MIN_FREE_DISK: "0",
        PA_LIMITS_EXECUTE_RATE: "1000",
        PA_LIMITS_MESSAGE_RATE: "1000",
      };
      const app = stack.use(await testApp(settings, { home, ladder }));
      const full = await enter(app, (await device(app, "full", "owner")).token);
      const { id, token } = await device(app, "full", "lost");
      const lost = await enter(app, token);
      const project_id = await full.create(await app.directory());
      await lost.expect("project_state", "execute", { project_id, data: { prompt: "hang" } });
      const data = { prompt: "say:later", queue: true };
      // More than what fits in the last page of a file, which is there already.
      for (let count = 0; count < 40; count += 1)
        // oxlint-disable-next-line no-await-in-loop -- one after the other
        await lost.expect("execution_queued", "execute", { project_id, data });
      disk.fill();
      const reply = await full.ask("device_revoke", { data: { device_id: id } });
      expect(reply.data).toMatchObject({ code: "STORAGE_ERROR" });
      // The answer is about the device's record; the agent is on its way out.
      const deadline = AbortSignal.timeout(10_000);
      while (!deadline.aborted && (await agentsOf(home)).length > 0) await Bun.sleep(50);
      expect(await agentsOf(home)).toEqual([]);
      disk.relieve(process.pid);
    },
    30_000,
  );

  test("spares its run when asked to", async () => {
    await using app = await lockedApp();
    const full = await enter(app, (await device(app, "full", "owner")).token);
    const { id, token } = await device(app, "full", "lost");
    const lost = await enter(app, token);
    const project_id = await full.create(await app.directory());
    await lost.expect("project_state", "execute", { project_id, data: { prompt: "hang" } });
    await full.expect("device_revoked", "device_revoke", {
      data: { device_id: id, keep_runs: true },
    });
    const { data } = await full.expect("project_list_response", "project_list");
    expect(data.projects).toMatchObject([{ state: "EXECUTING" }]);
  });

  test("that asks for it itself is answered first", async () => {
    await using app = await lockedApp();
    const { id, token } = await device(app, "full");
    const client = await enter(app, token);
    await client.expect("device_revoked", "device_revoke", { data: { device_id: id } });
    expect((await client.closed).code).toBe(4403);
  });

  test("that is an authorized key keeps that key out", async () => {
    await using app = await lockedApp();
    const full = await enter(app, (await device(app, "full")).token);
    const client = await app.client();
    await tryKey(client, owner);
    const data = { device_id: owner.fingerprint };
    await full.expect("device_revoked", "device_revoke", { data });
    expect((await client.closed).code).toBe(4403);
    const again = await app.client();
    expect(await tryKey(again, owner)).toMatchObject({ data: { code: "UNAUTHORIZED" } });
  });
});

test("what somebody is refused all the time is not noted all the time", async () => {
  await using app = await lockedApp({ PA_LIMITS_MESSAGE_RATE: "1000" });
  const read = await enter(app, (await device(app, "read")).token);
  for (let count = 0; count < 100; count += 1)
    expect(await read.ask("device_list")).toMatchObject({ data: { code: "FORBIDDEN" } });
  const audit = await Bun.file(join(app.dataDir, "audit.jsonl")).text();
  const noted = audit.split("\n").filter((line) => line.includes('"refusal"')).length;
  expect(noted).toBeGreaterThanOrEqual(20);
  expect(noted).toBeLessThan(50);
});
