import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { notification } from "../src/contract/notifications.ts";
import { scratch, type TestApp, testApp } from "./support/app.ts";
import { Client } from "./support/client.ts";
import { type Received, Receiver } from "./support/receiver.ts";
import { ServerProcess } from "./support/server-process.ts";

setDefaultTimeout(60_000);

let stack: AsyncDisposableStack;
let hook: Receiver;
let app: TestApp;
let client: Client;
let project_id: string;

beforeEach(() => {
  stack = new AsyncDisposableStack();
  hook = stack.use(new Receiver());
});
afterEach(() => stack.disposeAsync());

/** With the webhook, unless other places are given. */
async function setUp(settings: Record<string, string> = {}, name = "shop"): Promise<void> {
  const elsewhere = "PA_NOTIFY_NTFY" in settings;
  const webhook = { PA_NOTIFY_WEBHOOK: hook.url.href };
  app = stack.use(await testApp({ ...(elsewhere ? {} : webhook), ...settings }));
  client = await app.client();
  project_id = await client.create(await app.directory(name));
}

/** Everything that is sent is within the contract. */
const read = ({ body }: Received) => v.parse(notification, JSON.parse(body.toString()));
const told = async () => read(await hook.next());
const events = () => hook.received.map((received) => read(received).event);

async function execute(prompt: string, rest: object = {}): Promise<void> {
  const data = { prompt, ...rest };
  await client.ask("execute", { project_id, data });
}

async function asked(prompt: string): Promise<string> {
  await execute(prompt);
  return (await client.next("permission_request")).data.permission_id;
}

const answer = (permission_id: string, data: object) =>
  client.expect("permission_resolved", "permission_response", {
    project_id,
    data: { permission_id, ...data },
  });

const view = (visible: boolean, by = client) =>
  by.ask("project_view", { project_id, data: { visible } });

/** Something that everybody is told of: what was not told before it will not be told at all. */
async function untilFailed(): Promise<void> {
  await client.run(project_id, "error:broken");
  while ((await told()).event !== "failed");
}

const counted = async (channel: string, outcome: string) => {
  const name = `pocket_agent_notifications_total{channel="${channel}",outcome="${outcome}"}`;
  const line = (await app.metrics.text()).split("\n").find((at) => at.startsWith(name));
  return Number(line?.slice(name.length) ?? 0);
};

const canary = (what: string) => `canary-${what}-${crypto.randomUUID()}`;

describe("what is told", () => {
  test("is each request, once, with the card that a tap opens, and then the end", async () => {
    await setUp();
    const permission_id = await asked(`tool:Bash:{"command":"make"}`);
    expect(await told()).toEqual({
      event: "needs_input",
      project_id,
      permission_id,
      title: "shop needs you",
      body: "The agent wants to use Bash",
      url: `/#/projects/${project_id}/${permission_id}`,
    });
    await answer(permission_id, { decision: "allow" });
    expect(await told()).toEqual({
      event: "finished",
      project_id,
      title: "shop is done",
      body: "The run is finished",
      url: `/#/projects/${project_id}`,
    });
    await asked("ask");
    expect(await told()).toMatchObject({ body: "The agent asks a question" });
    await client.expect("project_state", "agent_kill", { project_id });
    await asked("plan");
    expect(await told()).toMatchObject({ body: "The agent has a plan" });
    await client.expect("project_state", "agent_kill", { project_id });
    await untilFailed();
    expect(events()).toEqual(["needs_input", "finished", "needs_input", "needs_input", "failed"]);
  });

  test("is each of three requests at once", async () => {
    await setUp();
    await execute("parallel:3");
    const ids = [await told(), await told(), await told()].map((it) => it.permission_id);
    expect(new Set(ids).size).toBe(3);
    const { data } = await client.expect("project_joined", "project_join", { project_id });
    expect(data.permissions.map((request) => request.permission_id)).toEqual(ids.map(String));
  });

  test("is not what a person has done: a kill, a turn stopped with a refusal", async () => {
    await setUp();
    await execute("hang");
    await client.expect("project_state", "agent_kill", { project_id });
    const permission_id = await asked(`tool:Bash:{"command":"make"}`);
    expect(await told()).toMatchObject({ event: "needs_input" });
    await answer(permission_id, { decision: "deny", interrupt: true });
    await client.settled(project_id);
    await untilFailed();
    expect(events()).toEqual(["needs_input", "failed"]);
  });

  test("is a failure of any kind", async () => {
    await setUp({ PA_EXECUTION_TIMEOUT: "300ms" });
    await client.run(project_id, "error:broken");
    expect(await told()).toMatchObject({
      event: "failed",
      title: "shop failed",
      body: "The run ended with an error",
    });
    await client.run(project_id, "hang");
    expect(await told()).toMatchObject({
      event: "failed",
      body: "The run took too long and was stopped",
    });
  });

  test("is no end of a run while the project's queue goes on, but every failure", async () => {
    await setUp();
    await execute("stream:20:20");
    for (const prompt of ["say:second", "error:third", "say:fourth"])
      // oxlint-disable-next-line no-await-in-loop -- in order
      await execute(prompt, { queue: true });
    expect(await told()).toMatchObject({ event: "failed" });
    expect(await told()).toMatchObject({ event: "finished" });
    await untilFailed();
    expect(events()).toEqual(["failed", "finished", "failed"]);
  });

  test("has nothing of what people and the agent wrote, and no more of the path than its end", async () => {
    const secrets = ["prompt", "input", "answer", "error", "model"].map(canary);
    const [prompt, input, said, error, model] = secrets;
    await setUp({
      PA_NOTIFY_WEBHOOK: hook.url.href,
      PA_NOTIFY_NTFY: new URL("/topic", hook.url).href,
    });
    const data = { prompt: `tool:Bash:{"command":"${input}"}\nsay:${said}\n${prompt}` };
    await execute(data.prompt, { options: { append_system_prompt: model } });
    const { data: request } = await client.next("permission_request");
    await answer(request.permission_id, { decision: "deny", message: secrets[2] });
    await client.settled(project_id);
    await client.run(project_id, `error:${error}`);
    while (hook.received.length < 6) await hook.next();
    const all = hook.received.map(({ headers, body }) =>
      JSON.stringify([...headers, body.toString()]),
    );
    const leaked = [...secrets, app.home].filter((secret) => all.join().includes(secret ?? ""));
    expect(leaked).toEqual([]);
    expect(all.join()).toContain("shop");
  });

  test("has a name without controls and of bearable length, and only a plain name of a tool", async () => {
    await setUp({}, `\u202e${"é".repeat(100)}`);
    await execute(
      `junk:{"type":"control_request","request_id":"x","request":{"subtype":"can_use_tool","tool_name":"Bash, call 555","input":{}}}\nhang`,
    );
    expect(await told()).toMatchObject({
      title: `${"é".repeat(80)} needs you`,
      body: "The agent wants to use a tool",
    });
  });
});

describe("a project that somebody looks at", () => {
  test("is told to nobody, until nobody looks any more", async () => {
    await setUp();
    expect(await view(true)).toMatchObject({
      type: "error",
      data: { code: "INVALID_MESSAGE", message: expect.stringContaining("project_join") },
    });
    const other = await app.client();
    for (const one of [client, other])
      // oxlint-disable-next-line no-await-in-loop -- in order
      await one.expect("project_joined", "project_join", { project_id });
    await client.run(project_id, "say:1");
    expect(await view(true)).toMatchObject({ type: "project_viewed", data: { visible: true } });
    await view(true, other);
    await client.run(project_id, "say:2");
    await client.run(project_id, "error:3");
    await view(false);
    // One of two is enough.
    await client.run(project_id, "error:4");
    await other.expect("project_left", "project_leave", { project_id });
    await client.run(project_id, "error:5");
    await view(true);
    // Joining again begins anew.
    await client.expect("project_joined", "project_join", { project_id });
    await client.run(project_id, "say:6");
    await other.expect("project_joined", "project_join", { project_id });
    await view(true, other);
    await client.run(project_id, "error:7");
    await other[Symbol.asyncDispose]();
    // The server has noticed when it no longer counts the connection.
    while (!(await app.metrics.text()).includes("pocket_agent_connections_active 1\n"))
      // oxlint-disable-next-line no-await-in-loop -- waits
      await Bun.sleep(5);
    await client.run(project_id, "say:8");
    await client.run(project_id, "error:9");
    while (hook.received.length < 5) await hook.next();
    expect(events()).toEqual(["finished", "failed", "finished", "finished", "failed"]);
  });

  test("keeps no other project quiet, and one that is none cannot be looked at", async () => {
    await setUp();
    await client.expect("project_joined", "project_join", { project_id });
    await view(true);
    const second = await client.create(await app.directory("other"));
    await client.run(second, "say:x");
    expect(await told()).toMatchObject({ project_id: second, title: "other is done" });
    const unknown = { project_id: crypto.randomUUID(), data: { visible: true } };
    expect(await client.ask("project_view", unknown)).toMatchObject({
      data: { code: "PROJECT_NOT_FOUND" },
    });
  });
});

describe("a webhook", () => {
  const soon = { "retry-after": "0" };

  test("is tried again after 500, 503 and 429 until it has got it", async () => {
    await setUp();
    hook.answer({ status: 500 }, { status: 503, headers: soon }, { status: 429, headers: soon });
    await client.run(project_id, "say:x");
    await client.run(project_id, "error:y");
    expect(await Promise.all([told(), told(), told(), told(), told()])).toMatchObject([
      { event: "finished" },
      { event: "finished" },
      { event: "finished" },
      { event: "finished" },
      { event: "failed" },
    ]);
    while ((await counted("webhook", "sent")) < 2) await Bun.sleep(5);
    expect(hook.received).toHaveLength(5);
    expect(app.lines.filter(({ text }) => text.includes("notification"))).toEqual([]);
  });

  test("is given up after four attempts, said once with the cause, without its address", async () => {
    await setUp({ PA_NOTIFY_WEBHOOK: new URL("/secret-path", hook.url).href });
    hook.answer(...Array.from({ length: 4 }, () => ({ status: 502, headers: soon })));
    await client.run(project_id, "say:x");
    await client.run(project_id, "error:y");
    const received = [await told(), await told(), await told(), await told(), await told()];
    expect(received.map(({ event }) => event)).toEqual([
      ...Array.from({ length: 4 }, () => "finished" as const),
      "failed",
    ]);
    const lines = app.lines.filter(({ text }) => text === "cannot deliver a notification");
    expect(lines).toMatchObject([
      { fields: { channel: "webhook", reason: "the answer was 502", attempts: 4 } },
    ]);
    expect(await counted("webhook", "failed")).toBe(1);
    expect(JSON.stringify(app.lines)).not.toContain("secret-path");
  });

  test.each([
    ["400", { status: 400 }],
    ["404", { status: 404 }],
    ["a redirect, which is not followed", { status: 302, headers: { location: "/elsewhere" } }],
    ["a pause that is too long", { status: 503, headers: { "retry-after": "3600" } }],
  ])("is not tried again after %s", async (_, given) => {
    await setUp();
    hook.answer(given);
    await client.run(project_id, "say:x");
    await untilFailed();
    expect(events()).toEqual(["finished", "failed"]);
    expect(await counted("webhook", "failed")).toBe(1);
    expect(hook.received.map(({ path }) => path)).not.toContain("/elsewhere");
  });

  test("that never answers keeps no run, no other channel and no shutdown waiting", async () => {
    const topic = stack.use(new Receiver());
    await setUp({
      PA_NOTIFY_TIMEOUT: "1h",
      PA_NOTIFY_WEBHOOK: hook.url.href,
      PA_NOTIFY_NTFY: new URL("/topic", topic.url).href,
    });
    hook.answer("silence");
    for (const prompt of ["say:1", "error:2", "say:3"])
      // oxlint-disable-next-line no-await-in-loop -- in order
      await client.run(project_id, prompt);
    const titles = [await topic.next(), await topic.next(), await topic.next()];
    expect(titles.map(({ headers }) => headers.get("title"))).toEqual([
      "shop is done",
      "shop failed",
      "shop is done",
    ]);
    await app[Symbol.asyncDispose]();
    expect(hook.received).toHaveLength(1);
    expect(await counted("webhook", "failed")).toBe(1);
    expect(await counted("webhook", "dropped")).toBe(2);
  });

  test("that nobody listens on keeps no shutdown waiting either", async () => {
    await hook[Symbol.asyncDispose]();
    await setUp();
    await client.run(project_id, "say:1");
    await app[Symbol.asyncDispose]();
    expect(
      app.lines.find(({ text }) => text === "cannot deliver a notification")?.fields,
    ).toMatchObject({ reason: "ECONNREFUSED", attempts: 1 });
  });

  test("that falls far behind gets the newest, and what it does not get is counted", async () => {
    await setUp({ PA_NOTIFY_TIMEOUT: "1h" });
    hook.answer("silence");
    await execute("parallel:80");
    const requests = [];
    while (requests.length < 80) requests.push(await client.next("permission_request"));
    await client.expect("project_state", "agent_kill", { project_id });
    // One is on its way, or was not yet, and 64 wait.
    expect(await counted("webhook", "dropped")).toBeWithin(15, 17);
    await app[Symbol.asyncDispose]();
    expect(await counted("webhook", "dropped")).toBeWithin(79, 81);
  });

  test("that is too slow is asked again", async () => {
    await setUp({ PA_NOTIFY_TIMEOUT: "100ms" });
    hook.answer("silence");
    await client.run(project_id, "say:1");
    expect([await told(), await told()]).toMatchObject([
      { event: "finished" },
      { event: "finished" },
    ]);
  });
});

describe("a topic of ntfy", () => {
  test("gets title, text, priority, tags, the token, and the card as a link", async () => {
    await setUp(
      {
        PA_NOTIFY_NTFY: new URL("/my-topic", hook.url).href,
        PA_NOTIFY_NTFY_TOKEN: "tk_secret",
        PA_SERVER_ALLOWED_HOSTS: "dev.example.org:8443",
      },
      "läden",
    );
    const permission_id = await asked(`tool:Bash:{"command":"make"}`);
    const { path, headers, body } = await hook.next();
    expect({ path, body: body.toString() }).toEqual({
      path: "/my-topic",
      body: "The agent wants to use Bash",
    });
    const title = `=?UTF-8?B?${Buffer.from("läden needs you").toString("base64")}?=`;
    expect(Object.fromEntries(headers)).toMatchObject({
      title,
      priority: "high",
      tags: "raised_hand",
      authorization: "Bearer tk_secret",
      click: `http://dev.example.org:8443/#/projects/${project_id}/${permission_id}`,
    });
    await answer(permission_id, { decision: "allow" });
    const { headers: end } = await hook.next();
    expect(Object.fromEntries(end)).toMatchObject({
      priority: "default",
      tags: "white_check_mark",
      click: `http://dev.example.org:8443/#/projects/${project_id}`,
    });
  });

  test("gets no link that only this machine could follow", async () => {
    await setUp({ PA_NOTIFY_NTFY: new URL("/t", hook.url).href });
    await client.run(project_id, "say:x");
    const { headers } = await hook.next();
    expect(headers.get("title")).toBe("shop is done");
    expect(headers.get("click")).toBeNull();
  });
});

/** A server in a process of its own, which can be stopped like one. */
async function serve(home: string) {
  const settings = { PA_NOTIFY_WEBHOOK: hook.url.href };
  const server = stack.use(await ServerProcess.start({ home, settings }));
  return { server, client: stack.use(await Client.connect(server.url)) };
}

describe("a server that stops in the middle", () => {
  test("by a crash, tells of the failure when it is back, and nothing a second time", async () => {
    const home = await scratch(stack);
    await mkdir(join(home, "shop"));
    const first = await serve(home);
    client = first.client;
    project_id = await client.create(join(home, "shop"));
    await asked(`tool:Bash:{"command":"make"}`);
    expect(await told()).toMatchObject({ event: "needs_input" });
    await first.server.crash();
    const second = await serve(home);
    expect(await told()).toMatchObject({
      event: "failed",
      body: "The server stopped before the run had ended",
    });
    await second.server.stop();
    const third = await serve(home);
    client = third.client;
    await client.expect("project_joined", "project_join", { project_id });
    await client.run(project_id, "say:x");
    expect(await told()).toMatchObject({ event: "finished" });
    expect(hook.received).toHaveLength(3);
  });

  test("in order, asks nobody for what nobody can answer any more", async () => {
    await setUp();
    await client.expect("project_state", "execute", {
      project_id,
      data: { prompt: `stream:5:20\ntool:Bash:{"command":"make"}` },
    });
    await client.next("agent_message", ({ data }) => data.type === "stream_event");
    await app.app.drain("test");
    expect(await told()).toMatchObject({ event: "failed" });
    const requests = client.received.filter(({ type }) => type === "permission_request");
    expect(requests).toHaveLength(1);
    expect(hook.received).toHaveLength(1);
  });

  test("by a signal, tells of the run that it ends", async () => {
    const home = await scratch(stack);
    await mkdir(join(home, "shop"));
    const { server, client: one } = await serve(home);
    client = one;
    project_id = await client.create(join(home, "shop"));
    await asked(`tool:Bash:{"command":"make"}`);
    expect(await told()).toMatchObject({ event: "needs_input" });
    expect(await server.stop()).toBe(0);
    expect(await told()).toMatchObject({ event: "failed" });
    expect(hook.received).toHaveLength(2);
  });
});
