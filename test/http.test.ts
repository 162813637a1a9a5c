import { expect, setDefaultTimeout, test } from "bun:test";
import { errors, Fault } from "../src/contract/errors.ts";
import { metrics } from "../src/contract/metrics.ts";
import { createHttp, type HttpDeps } from "../src/edge/http.ts";
import type { Health } from "../src/contract/messages.ts";
import { type TestApp, testApp } from "./support/app.ts";

setDefaultTimeout(60_000);

const get = (app: TestApp, path: string, init?: RequestInit) => fetch(new URL(path, app.url), init);

const number = String.raw`-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?|Inf)|\+Inf|NaN`;
const label = String.raw`[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*"`;
const sample = new RegExp(
  String.raw`^([a-zA-Z_:][\w:]*)(?:\{(${label}(?:,${label})*)\})? (${number})$`,
);

const stranger = { address: "192.0.2.1" };

const unhealthy: Health = {
  status: "unhealthy",
  uptime: 1,
  version: "1.0.0",
  connections: { active: 0, limit: 1 },
  projects: { count: 0, limit: 1, executing: 0 },
  resources: { cpu_percent: 0, memory_mb: 1, disk_free_gb: 1, event_loop_lag_ms: 0 },
  claude: { available: false, version: null, authenticated: null, path: null },
  problems: ["nothing works"],
};
const fail = () => Promise.reject(new Error("not in this test"));

function authorize(token: string | undefined) {
  if (token === "t") return "full" as const;
  throw new Fault("UNAUTHORIZED");
}

/** The surface by itself: a token "t" may do everything, and whatever is not given fails. */
function surface(parts: Partial<HttpDeps>) {
  // Projects are in no test that has only this.
  const projects = undefined as never;
  const rest = { projects, authorize, sessions: () => [], log: () => undefined };
  return createHttp({ health: fail, metrics: fail, ...rest, ...parts });
}

/** Reads Prometheus text, strictly: every line is a comment of a known kind or one sample. */
async function scrape(app: TestApp) {
  const response = await get(app, "/metrics");
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toStartWith("text/plain; version=0.0.4");
  const kinds = new Map<string, string>();
  const helps = new Map<string, string>();
  const samples = new Map<string, number>();
  for (const line of (await response.text()).split("\n").filter((text) => text !== "")) {
    const [, comment, name = "", rest = ""] = /^# (HELP|TYPE) (\w+) (.+)$/.exec(line) ?? [];
    if (comment) (comment === "TYPE" ? kinds : helps).set(name, rest);
    else {
      const [, series, labels, value] = sample.exec(line) ?? [];
      if (!series) throw new Error(`Not Prometheus text: ${line}`);
      samples.set(labels ? `${series}{${labels}}` : series, Number(value));
    }
  }
  const value = (series: string) => samples.get(`pocket_agent_${series}`);
  return { kinds, helps, samples, value };
}

test("GET /health says nothing but that the server lives", async () => {
  await using app = await testApp();
  const response = await get(app, "/health");
  expect(response.status).toBe(200);
  expect(await response.json()).toEqual({ status: "ok" });
});

test("GET /ready is 200 and says nothing but the status, for a degraded server too", async () => {
  await using app = await testApp();
  await using degraded = await testApp({ PA_CLAUDE_BINARY: "/nowhere/claude" });
  const answers = await Promise.all([get(app, "/ready"), get(degraded, "/ready")]);
  expect(answers.map(({ status }) => status)).toEqual([200, 200]);
  expect(await answers[0].json()).toEqual({ status: "healthy" });
  expect(await answers[1].json()).toEqual({ status: "degraded" });
});

test("GET /ready is 503 with the failing checks when the server is unhealthy", async () => {
  const { request } = surface({ health: async () => unhealthy });
  const response = await request("/ready", undefined, stranger);
  expect(response.status).toBe(503);
  expect(await response.json()).toEqual({ status: "unhealthy" });
  const told = await request("/ready", { headers: { authorization: "Bearer t" } }, stranger);
  expect(told.status).toBe(503);
  expect(await told.json()).toEqual({ status: "unhealthy", problems: ["nothing works"] });
});

test("a failure of ours is 500 and logged, and tells a stranger nothing", async () => {
  const logged: unknown[] = [];
  const failure = new Error("secret /home/somebody/path");
  const { request } = surface({
    metrics: () => Promise.reject(failure),
    log: (...line) => void logged.push(line),
  });
  const init = { headers: { authorization: "Bearer t" } };
  const response = await request("/metrics", init, stranger);
  expect(response.status).toBe(500);
  const { error } = Object(await response.json());
  const correlation_id = error.details?.correlation_id;
  const message = "Cannot handle the request: the server failed";
  expect(error).toEqual({ code: "INTERNAL_ERROR", message, details: { correlation_id } });
  expect(response.headers.get("x-content-type-options")).toBe("nosniff");
  expect(logged).toEqual([[failure, correlation_id]]);
});

test.each([
  "/nonsense",
  "/index.html",
  "/health/",
  "/ws/",
  "/..%2f..%2fetc/passwd",
  "/api/v2/projects",
])("GET %s is 404 in JSON", async (path) => {
  await using app = await testApp();
  const response = await get(app, path);
  expect(response.status).toBe(404);
  expect(await response.json()).toMatchObject({ error: { message: expect.any(String) } });
});

test("whatever is not GET or HEAD is 405 and says so", async () => {
  await using app = await testApp();
  for (const method of ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"]) {
    const { status, headers } = await get(app, "/health", { method });
    expect({ status, allow: headers.get("allow") }).toEqual({ status: 405, allow: "GET, HEAD" });
  }
  expect((await get(app, "/health", { method: "HEAD" })).status).toBe(200);
});

test("no answer has CORS headers, and every one forbids sniffing and storing", async () => {
  await using app = await testApp();
  for (const path of ["/health", "/ready", "/metrics", "/nonsense", "/ws"]) {
    const { headers } = await get(app, path, { headers: { origin: "https://evil.example" } });
    const names = [...headers.keys()];
    expect(names.filter((name) => name.startsWith("access-control"))).toEqual([]);
    expect(headers.get("x-content-type-options")).toBe("nosniff");
    expect(headers.get("cache-control")).toBe("no-store");
  }
});

test("GET /metrics is Prometheus text with every metric of the table", async () => {
  await using app = await testApp();
  const { kinds, helps } = await scrape(app);
  const rows = Object.entries(metrics);
  expect(Object.fromEntries(kinds)).toEqual(
    Object.fromEntries(rows.map(([name, { kind }]) => [`pocket_agent_${name}`, kind])),
  );
  expect(Object.fromEntries(helps)).toEqual(
    Object.fromEntries(rows.map(([name, { about }]) => [`pocket_agent_${name}`, about])),
  );
});

test("a counter whose label values are known starts at 0 for each", async () => {
  await using app = await testApp();
  const { value } = await scrape(app);
  for (const code of Object.keys(errors)) expect(value(`errors_total{code="${code}"}`)).toBe(0);
  for (const [name, row] of Object.entries(metrics))
    for (const known of "values" in row ? row.values : [])
      expect(value(`${name}{${row.labels[0]}="${known}"}`)).toBe(0);
});

test("connections, messages and errors are counted", async () => {
  await using app = await testApp();
  const client = await app.client();
  await client.expect("pong", "ping");
  await client.expect("pong", "ping");
  client.socket.send("junk");
  client.socket.send('{"type":"of no row"}');
  await client.ask("agent_kill", { project_id: crypto.randomUUID() });
  await get(app, "/ws", {
    headers: { "sec-websocket-protocol": "pocket-agent.v9" },
  });
  const { value, samples } = await scrape(app);
  expect(value("connections_active")).toBe(1);
  expect(value("connections_total")).toBe(1);
  expect(value('connections_refused_total{reason="protocol"}')).toBe(1);
  expect(value('messages_total{direction="in",type="ping"}')).toBe(2);
  expect(value('messages_total{direction="in",type="unknown"}')).toBe(2);
  expect(value('messages_total{direction="out",type="pong"}')).toBe(2);
  expect(value('messages_total{direction="out",type="hello"}')).toBe(1);
  expect(value('errors_total{code="INVALID_MESSAGE"}')).toBe(2);
  expect(value('errors_total{code="PROJECT_NOT_FOUND"}')).toBe(1);
  // What a client invents must not become a series.
  expect([...samples.keys()].filter((series) => series.includes("of no row"))).toEqual([]);
});

test("runs, logs and replays are counted", async () => {
  await using app = await testApp();
  const client = await app.client();
  const project_id = await client.create(await app.directory());
  await client.expect("project_state", "execute", { project_id, data: { prompt: "say:hello" } });
  const { last_seq } = await client.settled(project_id);
  await client.expect("project_state", "execute", { project_id, data: { prompt: "exit1:broken" } });
  await client.settled(project_id);
  const watcher = await app.client();
  await watcher.expect("project_joined", "project_join", { project_id, data: { after_seq: 0 } });
  await watcher.next("caught_up");
  const { value } = await scrape(app);
  expect(value("projects_total")).toBe(1);
  expect(value("executions_active")).toBe(0);
  expect(value('executions_total{outcome="success"}')).toBe(1);
  expect(value('executions_total{outcome="failed"}')).toBe(1);
  expect(value('errors_total{code="EXECUTION_FAILED"}')).toBe(1);
  expect(value('execution_duration_seconds_count{outcome="success"}')).toBe(1);
  expect(value('execution_tokens_total{direction="output"}')).toBeGreaterThan(0);
  expect(value("execution_cost_usd_total")).toBeGreaterThan(0);
  expect(value("log_bytes_total")).toBeGreaterThan(0);
  expect(value("log_sync_seconds_count")).toBeGreaterThan(0);
  expect(value("replay_events_total")).toBeGreaterThan(last_seq);
  expect(value("unhandled_errors_total")).toBe(0);
});
