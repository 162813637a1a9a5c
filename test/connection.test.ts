import { expect, setDefaultTimeout, test } from "bun:test";
import { testApp } from "./support/app.ts";
import { until } from "./support/claude-lab.ts";
import type { Client } from "./support/client.ts";
import { opcodes, RawSocket } from "./support/raw-socket.ts";

setDefaultTimeout(60_000);

/** A pong may take as long as a busy machine makes it take. */
const lively = { PA_PING_INTERVAL: "100ms", PA_PONG_TIMEOUT: "2s" };

test("the first frame is hello, and says what is served", async () => {
  await using app = await testApp();
  await using client = await app.client();
  expect(client.received[0]).toMatchObject({
    type: "hello",
    data: {
      protocol: 1,
      server: { name: "pocket-agent-server", id: expect.stringMatching(/^SHA256:\S{43}$/) },
      auth: { required: false },
    },
  });
});

test("the id in hello is the same on every connection", async () => {
  await using app = await testApp();
  const [one, other] = await Promise.all([app.client(), app.client()]);
  expect(one.received[0]?.data).toEqual(other.received[0]?.data ?? {});
});

test("a client that offers pocket-agent.v1 gets it selected, and one that offers none gets none", async () => {
  await using app = await testApp();
  const offers = async (offered?: string) => {
    using raw = await RawSocket.open(app.url, {
      headers: offered === undefined ? {} : { "Sec-WebSocket-Protocol": offered },
    });
    return [raw.status, raw.header("sec-websocket-protocol")];
  };
  expect(await offers()).toEqual([101, undefined]);
  expect(await offers("pocket-agent.v1")).toEqual([101, "pocket-agent.v1"]);
  expect(await offers("pocket-agent.v2, pocket-agent.v1")).toEqual([101, "pocket-agent.v1"]);
  // Nobody here speaks those.
  for (const others of ["x", "x, y", "POCKET-AGENT.v1", "POCKET-AGENT.v9"])
    expect(await offers(others)).toEqual([101, undefined]);
  expect(await offers("x, pocket-agent.v1")).toEqual([101, "pocket-agent.v1"]);
});

test("a client gets in at /ws, and by no other spelling of it", async () => {
  await using app = await testApp();
  const status = async (path: string) => {
    using raw = await RawSocket.open(app.url, { path });
    return raw.status;
  };
  expect([await status("/ws"), await status("/ws?a=b")]).toEqual([101, 101]);
  const others = [
    "/x/../ws",
    "/./ws",
    "//ws",
    "/ws/",
    "/WS",
    "/%77s",
    "/x/%2e%2e/ws",
    "/x\\..\\ws",
  ];
  for (const path of [...others, "/ws#a", `${app.url.origin}/x/../ws`])
    expect([path, await status(path)]).toEqual([path, 404]);
});

test("a client that offers only unknown versions is refused with the one that is served", async () => {
  await using app = await testApp();
  using raw = await RawSocket.open(app.url, {
    headers: { "Sec-WebSocket-Protocol": "pocket-agent.v2, pocket-agent.v9" },
  });
  expect(raw.status).toBe(400);
  expect(await raw.body()).toContain("pocket-agent.v1");
});

test("a plain GET of /ws is answered 426", async () => {
  await using app = await testApp();
  expect((await fetch(new URL("/ws", app.url))).status).toBe(426);
});

test("a connection more than limits.max_connections is refused 503, until one has left", async () => {
  await using app = await testApp({ PA_MAX_CONNECTIONS: "2" });
  const [first] = await Promise.all([app.client(), app.client()]);
  using third = await RawSocket.open(app.url);
  expect(third.status).toBe(503);
  expect(await third.body()).toContain("limits.max_connections");
  first?.socket.close();
  await until(async () => {
    using again = await RawSocket.open(app.url);
    return again.status === 101;
  });
});

test.each([
  ["an address", () => "192.0.2.7"],
  ["a network of IPv6", (count: number) => `2001:db8::${count}`],
])("connections of %s faster than limits.connection_rate are refused 429", async (_, from) => {
  const proxied = { PA_CONNECTION_RATE: "1", PA_SERVER_TRUSTED_PROXIES: "127.0.0.1" };
  await using app = await testApp(proxied);
  const open = (_each: unknown, count: number) =>
    RawSocket.open(app.url, { headers: { "X-Forwarded-For": from(count) } });
  const all = await Promise.all(Array.from({ length: 10 }, open));
  const statuses = all.map((raw) => raw.status);
  for (const raw of all) raw[Symbol.dispose]();
  expect(new Set(statuses)).toEqual(new Set([101, 429]));
  expect(await app.metrics.text()).toMatch(/connections_refused_total{reason="rate"} [1-9]/);
});

test("a Host that is no host is answered, and costs nobody else anything", async () => {
  await using app = await testApp();
  for (const Host of ["", "[", "a b", "@", "x:y:z", "\u00ff"]) {
    using raw = await RawSocket.open(app.url, { headers: { Host } });
    expect(raw.status).toBe(421);
  }
  const client = await app.client();
  await client.expect("pong", "ping");
  expect(app.lines.filter(({ level }) => level === "error")).toEqual([]);
});

test("ping is answered pong, with its request_id", async () => {
  await using app = await testApp();
  const client = await app.client();
  expect(await client.ask("ping", { data: {} })).toMatchObject({
    type: "pong",
    data: {},
    request_id: "r1",
  });
});

test("a protocol ping is answered with a pong of the same payload", async () => {
  await using app = await testApp();
  using raw = await RawSocket.open(app.url);
  raw.send(opcodes.ping, "are you there");
  await raw.until(() => raw.count(opcodes.pong) > 0);
  const pong = raw.received.find(({ opcode }) => opcode === opcodes.pong);
  expect(pong?.payload.toString()).toBe("are you there");
});

test("health says how the server and the agent are", async () => {
  await using app = await testApp();
  const client = await app.client();
  await client.create(await app.directory());
  const { data } = await client.expect("health_status", "health");
  expect(data).toMatchObject({
    status: "healthy",
    connections: { active: 1, limit: 100 },
    projects: { count: 1, limit: 100, executing: 0 },
    claude: { available: true, version: "2.1.197", authenticated: true },
    problems: [],
  });
});

test.each([
  ["the CLI is missing", { PA_CLAUDE_BINARY: "/nowhere/claude" }, "install"],
  ["the CLI is too old", { FAKE_CLAUDE_VERSION: "1.0.0" }, "too old"],
  ["nobody is logged in", { FAKE_CLAUDE_LOGGED_OUT: "1" }, "logged in"],
  ["the disk is nearly full", { PA_LIMITS_MIN_FREE_DISK: "8000000GB" }, "disk"],
])("health is degraded and says why when %s", async (_, settings, problem) => {
  await using app = await testApp(settings);
  const client = await app.client();
  const { data } = await client.expect("health_status", "health");
  expect(data.status).toBe("degraded");
  expect(data.problems).toEqual([expect.stringContaining(problem)]);
});

test("replies come in the order of the requests, and none waits behind a slow agent_kill", async () => {
  await using app = await testApp();
  const client = await app.client();
  const project_id = await client.create(await app.directory());
  await client.expect("project_state", "execute", { project_id, data: { prompt: "hang" } });
  client.send("agent_kill", { project_id, request_id: "kill" });
  const asked = Array.from({ length: 20 }, (_unused, at) => `after-${at}`);
  for (const [at, request_id] of asked.entries())
    client.send(at % 2 ? "ping" : "project_list", { request_id });
  await client.find(({ request_id }) => request_id === "kill", "the reply to agent_kill");
  const replied = client.received.map(({ request_id }) => request_id);
  expect(replied.filter((id) => id && !/^r\d/.test(id))).toEqual([...asked, "kill"]);
});

test("a client that answers no ping is closed 4408, although the server keeps publishing to it", async () => {
  await using app = await testApp({ ...lively, PA_LIMITS_MESSAGE_RATE: "1000000" });
  const busy = await app.client();
  using silent = await RawSocket.open(app.url, { pongs: false });
  const path = await app.directory();
  while (silent.count(opcodes.close) === 0) {
    const project_id = await busy.create(path);
    await busy.expect("project_deleted", "project_delete", { project_id });
  }
  expect(await silent.closeCode()).toBe(4408);
  expect(silent.count(opcodes.text)).toBeGreaterThan(1);
  await busy.expect("pong", "ping");
});

test("a client that only listens and answers pings stays", async () => {
  await using app = await testApp({ ...lively, PA_IDLE_TIMEOUT: "100ms" });
  using quiet = await RawSocket.open(app.url);
  await quiet.until(() => quiet.count(opcodes.ping) >= 30);
  quiet.send(opcodes.text, JSON.stringify({ type: "ping" }));
  await quiet.until(() => quiet.count(opcodes.text) >= 2);
  expect(quiet.count(opcodes.close)).toBe(0);
});

test("a client that reads nothing of what waits for it is closed 4408, and the others miss nothing", async () => {
  await using app = await testApp({ PA_TIMEOUTS_STALL: "2s" });
  const client = await app.client();
  const project_id = await client.create(await app.directory());
  await using stuck = new AsyncDisposableStack();
  const frozen = freezingClient(app.url, project_id);
  stuck.defer(() => frozen.kill("SIGKILL"));
  await frozen.stdout.getReader().read();
  frozen.kill("SIGSTOP");
  await client.expect("project_state", "execute", {
    project_id,
    data: { prompt: "flood:200:100000" },
  });
  await client.settled(project_id);
  await until(() => app.lines.some(({ text }) => text === "disconnected"));
  const { seq, last_seq } = await settledNumbers(client, project_id);
  expect(seq).toEqual(Array.from({ length: last_seq }, (_, at) => at + 1));
  const { data } = await client.expect("health_status", "health");
  expect(data.connections.active).toBe(1);
  expect(app.lines.find(({ text }) => text === "disconnected")?.fields).toMatchObject({
    code: 4408,
  });
});

test("server_stats comes to every client by itself", async () => {
  await using app = await testApp();
  const clients = await Promise.all([app.client(), app.client()]);
  await until(() =>
    clients.every(({ received }) => received.some(({ type }) => type === "server_stats")),
  );
  const stats = await clients[0]?.next("server_stats");
  expect(stats?.data).toMatchObject({ connections: 2, projects: 0, executions: { active: 0 } });
});

test("server_shutdown is told to every client, and close 1001 follows", async () => {
  await using app = await testApp();
  const client = await app.client();
  await app.app.drain("SIGTERM");
  const { data } = await client.next("server_shutdown");
  expect(data.reason).toBe("SIGTERM");
  expect(new Date(data.deadline).toISOString()).toBe(data.deadline);
  const refused = await client.ask("project_create", { data: { path: await app.directory() } });
  expect(refused.data).toMatchObject({ code: "SERVER_SHUTDOWN" });
  await app.app[Symbol.asyncDispose]();
  expect((await client.closed).code).toBe(1001);
});

/** A process that joins a project and says so; stopped, it is a client that really reads nothing. */
function freezingClient(url: URL, project_id: string) {
  const join = JSON.stringify({ type: "project_join", project_id });
  const program = `
    const socket = new WebSocket(${JSON.stringify(new URL("/ws", url).href.replace("http", "ws"))});
    socket.onmessage = ({ data }) => {
      const { type } = JSON.parse(data);
      if (type === "hello") socket.send(${JSON.stringify(join)});
      if (type === "caught_up") console.log(type);
    };`;
  return Bun.spawn([process.execPath, "-e", program], { stdout: "pipe" });
}

/** The numbers of the events that a client has of a project that rests, and what the last must be. */
async function settledNumbers(client: Client, project_id: string) {
  const { data } = await client.expect("project_list_response", "project_list");
  const last_seq = data.projects[0]?.last_seq ?? 0;
  await client.find((frame) => frame.seq === last_seq, "the last event");
  return { seq: client.events(project_id).map(({ seq }) => seq), last_seq };
}
