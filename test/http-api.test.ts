import { expect, setDefaultTimeout, test } from "bun:test";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { Fault } from "../src/contract/errors.ts";
import { projectState, type Scope, scopes, serverMessages } from "../src/contract/messages.ts";
import { createHttp } from "../src/edge/http.ts";
import { type TestApp, testApp } from "./support/app.ts";

setDefaultTimeout(60_000);

const locked = { PA_AUTH_MODE: "ssh", PA_INSECURE: "false" };
const nobody = crypto.randomUUID();
/** What each needs, and how it answers who has that. */
const routes = [
  { path: "/health", needs: null, status: 200 },
  { path: "/ready", needs: null, status: 200 },
  { path: "/metrics", needs: "full", status: 200 },
  { path: "/api/v1/health", needs: "read", status: 200 },
  { path: "/api/v1/sessions", needs: "full", status: 200 },
  { path: "/api/v1/projects", needs: "read", status: 200 },
  { path: `/api/v1/projects/${nobody}`, needs: "read", status: 404 },
  { path: `/api/v1/projects/${nobody}/messages`, needs: "read", status: 404 },
  { path: "/api/v1/nonsense", needs: null, status: 404 },
] as const;
const wrong = `pat_${"A".repeat(43)}`;

async function deviceOf(app: TestApp, scope: Scope): Promise<{ id: string; token: string }> {
  const { devices, tokens } = app.app.access;
  const { id } = await devices.add({ name: scope, scope, key: null, kind: "token" });
  return { id, token: (await tokens.issue(id, null)).token };
}

const tokenOf = async (app: TestApp, scope: Scope) => (await deviceOf(app, scope)).token;

const get = (app: TestApp, path: string, token?: string) => ask(app, path, { token });

function ask(app: TestApp, path: string, how: { method?: string; token?: string | undefined }) {
  const { method = "GET", token } = how;
  const headers = token === undefined ? undefined : { authorization: `Bearer ${token}` };
  return fetch(new URL(path, app.url), { method, ...(headers && { headers }) });
}

test.each(["GET", "HEAD"])("%s asks everybody for what the table says", async (method) => {
  await using app = await testApp(locked);
  const tokens: [who: string, token: string | undefined][] = [
    ["no token", undefined],
    ["wrong token", wrong],
  ];
  for (const scope of scopes) tokens.push([scope, await tokenOf(app, scope)]);
  const answers: unknown[] = [];
  for (const { path } of routes)
    for (const [who, token] of tokens) {
      const { status, headers } = await ask(app, path, { token, method });
      answers.push({ path, who, status });
      expect(headers.get("www-authenticate")).toBe(status === 401 ? "Bearer" : null);
      expect(headers.get("x-content-type-options")).toBe("nosniff");
      expect(headers.get("cache-control")).toBe("no-store");
    }
  const expected = routes.flatMap(({ path, needs, status }) => {
    const stranger = needs === null ? status : 401;
    const reader = needs === "full" ? 403 : status;
    const row = { "no token": stranger, "wrong token": stranger, read: reader, approve: reader };
    return Object.entries({ ...row, full: status }).map(([who, each]) => ({
      path,
      who,
      status: each,
    }));
  });
  expect(answers).toEqual(expected);
});

test("without authentication all of it is open", async () => {
  await using app = await testApp();
  for (const { path, status } of routes) expect((await get(app, path)).status).toBe(status);
});

test("whoever guesses is told when to try again, and keeps nobody else out", async () => {
  await using app = await testApp(locked);
  const token = await tokenOf(app, "read");
  for (let guess = 0; guess < 11; guess += 1)
    expect((await get(app, "/api/v1/projects", wrong)).status).toBe(401);
  const response = await get(app, "/api/v1/projects", wrong);
  expect(response.status).toBe(429);
  expect(response.headers.get("retry-after")).toBe("1");
  expect(await response.json()).toMatchObject({
    error: { code: "RATE_LIMITED", details: { retry_after_ms: expect.any(Number) } },
  });
  expect((await get(app, "/api/v1/projects", token)).status).toBe(200);
  expect((await get(app, "/api/v1/projects")).status).toBe(401);
});

test("a revoked device's token is worth nothing any more", async () => {
  await using app = await testApp(locked);
  const { id, token } = await deviceOf(app, "full");
  expect((await get(app, "/api/v1/sessions", token)).status).toBe(200);
  await app.app.access.devices.revoke(id);
  expect((await get(app, "/api/v1/sessions", token)).status).toBe(401);
});

test("a token counts in the header alone, and there as Bearer and once", async () => {
  await using app = await testApp(locked);
  const token = await tokenOf(app, "full");
  const send = (path: string, headers: Record<string, string> = {}) =>
    fetch(new URL(path, app.url), { headers });
  const tries = [
    send(`/api/v1/projects?token=${token}`),
    send(`/api/v1/projects?access_token=${token}`),
    send(`/api/v1/projects?authorization=Bearer%20${token}`),
    send("/api/v1/projects", { cookie: `token=${token}; authorization=Bearer ${token}` }),
    send("/api/v1/projects", { "x-authorization": `Bearer ${token}` }),
    send("/api/v1/projects", { authorization: token }),
    send("/api/v1/projects", { authorization: `Basic ${btoa(`:${token}`)}` }),
    send("/api/v1/projects", { authorization: `Bearer ${wrong}, Bearer ${token}` }),
  ];
  expect((await Promise.all(tries)).map(({ status }) => status)).toEqual(tries.map(() => 401));
  // The scheme's name has no case.
  expect((await send("/api/v1/projects", { authorization: `bearer ${token}` })).status).toBe(200);
});

test("the answers have the shapes of the protocol", async () => {
  await using app = await testApp();
  const client = await app.client();
  const id = await client.create(await app.directory());
  await client.run(id, "say:hello");
  const body = async (path: string): Promise<unknown> => (await get(app, path)).json();
  v.parse(serverMessages.health_status.data, await body("/api/v1/health"));
  const { projects } = v.parse(
    serverMessages.project_list_response.data,
    await body("/api/v1/projects"),
  );
  const state = v.parse(projectState, await body(`/api/v1/projects/${id}`));
  expect(state).toMatchObject({ id, state: "IDLE" });
  expect(projects).toEqual([state]);
  const all = v.parse(
    serverMessages.messages_response.data,
    await body(`/api/v1/projects/${id}/messages`),
  );
  expect(all.messages.map(({ seq }) => seq)).toEqual(all.messages.map((_, at) => at + 1));
  const some = await body(`/api/v1/projects/${id}/messages?after_seq=1&before_seq=9&limit=2`);
  expect(some).toEqual({ messages: all.messages.slice(1, 3), has_more: true });
  const since = encodeURIComponent(all.messages.at(-1)?.timestamp ?? "");
  expect(await body(`/api/v1/projects/${id}/messages?since=${since}`)).toEqual({
    messages: [],
    has_more: false,
  });
  expect(await body("/api/v1/sessions")).toEqual({
    sessions: [
      {
        connection: expect.any(String),
        device: null,
        address: "127.0.0.1",
        connected_at: expect.stringMatching(/^\d{4}-.+Z$/),
        projects: [id],
      },
    ],
  });
});

test("sessions name the devices that are connected", async () => {
  await using app = await testApp(locked);
  const { id, token } = await deviceOf(app, "full");
  const client = await app.client();
  await client.expect("auth_success", "auth_token", { data: { token } });
  const stranger = await app.client();
  expect(stranger.received).toHaveLength(1);
  expect(await (await get(app, "/api/v1/sessions", token)).json()).toMatchObject({
    sessions: [{ device: { id, name: "full", scope: "full" } }, { device: null }],
  });
});

test("history goes out as the very text that is on the disk", async () => {
  await using app = await testApp();
  const client = await app.client();
  const id = await client.create(await app.directory());
  await client.run(id, "say:hello 🚀");
  const logs = join(app.dataDir, "projects", id);
  const files = (await readdir(logs, { recursive: true })).filter((name) => /\.jsonl/.test(name));
  const [file = "none"] = files;
  expect(files).toHaveLength(1);
  const records = (await readFile(join(logs, file), "utf8"))
    .split("\n")
    .filter((line) => line.startsWith('{"seq":'));
  expect(records.length).toBeGreaterThan(3);
  const text = await (await get(app, `/api/v1/projects/${id}/messages`)).text();
  expect(text).toBe(`{"messages":[${records.join(",")}],"has_more":false}`);
});

test.each([
  ["limit=0", "limit"],
  ["limit=1001", "limit"],
  ["limit=1.5", "limit"],
  ["limit=", "limit"],
  ["limit=0x10", "limit"],
  ["limit=%", "limit"],
  ["limit=1&limit=2", "limit"],
  ["after_seq=-1", "after_seq"],
  ["after_seq=9007199254740993", "after_seq"],
  ["before_seq=99999999999999999999", "before_seq"],
  ["since=yesterday", "since"],
  ["since=2026", "since"],
  ["since=2026-13-41", "since"],
  ["nonsense=1", "nonsense"],
  ["limit=1&token=x", "token"],
])("a query %s is INVALID_MESSAGE and names the field", async (query, path) => {
  await using app = await testApp();
  const client = await app.client();
  const id = await client.create(await app.directory());
  const response = await get(app, `/api/v1/projects/${id}/messages?${query}`);
  expect(response.status).toBe(400);
  expect(await response.json()).toMatchObject({
    error: { code: "INVALID_MESSAGE", details: { path } },
  });
});

test("no address makes it throw", async () => {
  await using app = await testApp();
  const rest = [
    "%",
    "%00",
    "%e0%a4%a",
    "%2e%2e",
    "__proto__",
    "constructor",
    "a/b/c",
    "x".repeat(4000),
  ];
  for (const part of rest) {
    const paths = [`/api/v1/projects/${part}`, `/api/v1/projects/${part}/messages?${part}=${part}`];
    for (const path of [...paths, `/${part}`, `/health?${part}`]) {
      const { status } = await get(app, path);
      // Two dots are the way up, to the page.
      const found = path.startsWith("/health") || path === "/%2e%2e";
      expect({ path, status }).toEqual({ path, status: found ? 200 : 404 });
    }
  }
  expect(app.lines.filter(({ level }) => level === "error")).toEqual([]);
});

test.each(["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "QUERY"])(
  "%s is 405, whoever asks for whatever",
  async (method) => {
    const http = createHttp({
      health: () => Promise.reject(new Error("asked for the health")),
      metrics: () => Promise.reject(new Error("asked for the metrics")),
      // Nothing here gets that far.
      projects: undefined as never,
      sessions: () => [],
      authorize: () => {
        throw new Fault("UNAUTHORIZED");
      },
      log: () => undefined,
    });
    for (const { path } of routes) {
      const { status, headers } = await http.request(path, { method }, { address: "192.0.2.1" });
      expect({ status, allow: headers.get("allow") }).toEqual({ status: 405, allow: "GET, HEAD" });
    }
  },
);
