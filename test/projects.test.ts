import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { ProjectState } from "../src/contract/messages.ts";
import { scratch, type TestApp, testApp } from "./support/app.ts";
import type { Client, Frame } from "./support/client.ts";
import { ServerProcess, spawnServer } from "./support/server-process.ts";

setDefaultTimeout(60_000);

let stack: AsyncDisposableStack;
let home: string;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  home = await scratch(stack);
});

afterEach(() => stack.disposeAsync());

async function startApp(settings: Record<string, string> = {}): Promise<TestApp> {
  return stack.use(await testApp(settings, { home }));
}

/** Sends a request that must be refused. */
async function refusal(
  client: Client,
  type: Parameters<Client["ask"]>[0],
  rest: { project_id?: string; data?: unknown } = {},
) {
  return (await client.expect("error", type, rest)).data;
}

async function run(client: Client, project_id: string, prompt: string) {
  await client.expect("project_state", "execute", { project_id, data: { prompt } });
  return await client.settled(project_id);
}

const projectFiles = (app: TestApp) => readdirSync(join(app.dataDir, "projects"));
const lobby = (client: Client, type: Frame["type"], project_id: string) =>
  client.received.filter(
    (frame) =>
      frame.type === type && frame.project_id === project_id && frame.request_id === undefined,
  );

/** Everything sent to a client before this has arrived. */
const flushed = (client: Client) => client.expect("pong", "ping");

describe("project_create", () => {
  test("replies with an IDLE project of the real path, and tells everyone", async () => {
    const app = await startApp();
    const [client, other] = [await app.client(), await app.client()];
    const path = await app.directory("über den Fluß: \"a\" 'b'");
    const reply = await client.expect("project_state", "project_create", { data: { path } });
    expect(reply.seq).toBeUndefined();
    expect(reply.project_id).toBe(reply.data.id);
    expect(reply.data).toMatchObject({
      path,
      state: "IDLE",
      session_id: null,
      last_seq: 0,
      available: true,
      execution: null,
      queued: 0,
      usage: { cost_usd: 0, input_tokens: 0, output_tokens: 0, runs: 0, duration_ms: 0 },
      error: null,
    });
    const told = await other.next("project_updated");
    expect(told).toMatchObject({ project_id: reply.data.id, data: reply.data });
    expect(told.seq).toBeUndefined();
    await flushed(client);
    expect(lobby(client, "project_updated", reply.data.id)).toHaveLength(1);
  });

  test("keeps what was said about trust", async () => {
    const app = await startApp();
    const client = await app.client();
    const create = async (trusted: boolean) => {
      const path = await app.directory();
      return await client.expect("project_state", "project_create", { data: { path, trusted } });
    };
    expect((await create(true)).data.trusted).toBe(true);
    expect((await create(false)).data.trusted).toBe(false);
  });

  test("refuses paths that cannot be a project with INVALID_PATH", async () => {
    const app = await startApp();
    const client = await app.client();
    const inside = await app.directory("inside");
    writeFileSync(join(inside, "file"), "");
    const bad = [
      "relative/path",
      "~/project",
      `${inside}/../inside`,
      `${inside}/nothing`,
      join(inside, "file"),
      `${inside}\nx`,
      `${inside}\u0000`,
      "/",
      home,
      app.dataDir,
      join(app.dataDir, "projects"),
      join(home, ".claude"),
    ];
    for (const path of bad) {
      const { code, message } = await refusal(client, "project_create", { data: { path } });
      expect([path, code]).toEqual([path, "INVALID_PATH"]);
      expect(message).toStartWith("Cannot use ");
    }
    expect((await refusal(client, "project_create", { data: { path: "" } })).code).toBe(
      "INVALID_MESSAGE",
    );
    expect(projectFiles(app)).toEqual([]);
  });

  test("refuses a directory that is a project already, by whatever name, and says which", async () => {
    const app = await startApp();
    const client = await app.client();
    const path = await app.directory("real");
    const link = join(home, "work", "link");
    symlinkSync(path, link);
    const first = await client.expect("project_state", "project_create", { data: { path: link } });
    expect(first.data.path).toBe(path);
    for (const again of [path, link, `${path}/`, `${home}/work/./real`])
      expect(await refusal(client, "project_create", { data: { path: again } })).toMatchObject({
        code: "PROJECT_EXISTS",
        details: { project_id: first.data.id },
      });
  });

  test("refuses what nests with a project, and takes a mere namesake for a neighbour", async () => {
    const app = await startApp();
    const client = await app.client();
    const middle = await app.directory("a/p1/middle");
    await mkdir(join(middle, "deep"));
    await client.create(middle);
    symlinkSync(join(middle, "deep"), join(home, "work", "shortcut"));
    const paths = [`${middle}/deep`, `${home}/work/a/p1`, `${home}/work`, `${home}/work/shortcut`];
    for (const path of paths)
      expect(await refusal(client, "project_create", { data: { path } })).toMatchObject({
        code: "PROJECT_NESTING",
        details: { path: middle },
      });
    await client.create(await app.directory("a/p1/middle0"));
    await client.create(await app.directory("a/p10"));
    await client.create(await app.directory("a/p1/mid"));
  });

  test("refuses more than limits.max_projects, and takes one again when one was deleted", async () => {
    const app = await startApp({ PA_MAX_PROJECTS: "2" });
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    await client.create(await app.directory());
    const path = await app.directory();
    expect((await refusal(client, "project_create", { data: { path } })).code).toBe(
      "PROJECT_LIMIT",
    );
    await client.expect("project_deleted", "project_delete", { project_id });
    await client.create(path);
  });

  test("takes only what really lies inside projects.roots, if set", async () => {
    const app = await startApp({ PA_PROJECTS_ROOTS: join(home, "work", "root") });
    const client = await app.client();
    const inside = await app.directory("root/inside");
    const outside = await app.directory("root2");
    symlinkSync(outside, join(home, "work", "root", "escape"));
    for (const path of [outside, join(home, "work", "root", "escape")])
      expect((await refusal(client, "project_create", { data: { path } })).code).toBe(
        "INVALID_PATH",
      );
    await client.create(inside);
  });

  test("lets only one of two clients that ask at once have the directory", async () => {
    const app = await startApp();
    const clients = [await app.client(), await app.client()];
    const path = await app.directory();
    const replies = await Promise.all(
      clients.map((client) => client.ask("project_create", { data: { path } })),
    );
    expect(replies.map(({ type }) => type).toSorted()).toEqual(["error", "project_state"]);
    expect(projectFiles(app)).toHaveLength(1);
  });
});

test("project_list has all projects, oldest first, across a restart too", async () => {
  const created: string[] = [];
  {
    await using app = await testApp({}, { home });
    const client = await app.client();
    for (const name of ["z", "a", "m", "b"])
      created.push(await client.create(await app.directory(name)));
    const { data } = await client.expect("project_list_response", "project_list");
    expect(data.projects.map(({ id }) => id)).toEqual(created);
  }
  const app = await startApp();
  const client = await app.client();
  const { data } = await client.expect("project_list_response", "project_list");
  expect(data.projects.map(({ id }) => id)).toEqual(created);
});

describe("project_delete", () => {
  test("removes metadata and log from the disk and leaves the directory alone", async () => {
    const app = await startApp();
    const client = await app.client();
    const path = await app.directory();
    writeFileSync(join(path, "precious"), "work");
    const project_id = await client.create(path);
    await run(client, project_id, "say:hello");
    expect(projectFiles(app)).toEqual([project_id]);
    await client.expect("project_deleted", "project_delete", { project_id });
    expect(projectFiles(app)).toEqual([]);
    expect(readFileSync(join(path, "precious"), "utf8")).toBe("work");
    for (const type of ["project_delete", "project_join", "get_messages", "agent_kill"] as const)
      expect((await refusal(client, type, { project_id })).code).toBe("PROJECT_NOT_FOUND");
    const { data } = await client.expect("project_list_response", "project_list");
    expect(data.projects).toEqual([]);
  });

  test("is told to everybody once, and to the caller by a reply besides", async () => {
    const app = await startApp();
    const [client, subscriber, stranger] = [
      await app.client(),
      await app.client(),
      await app.client(),
    ];
    const project_id = await client.create(await app.directory());
    await client.expect("project_joined", "project_join", { project_id });
    await subscriber.expect("project_joined", "project_join", { project_id });
    const reply = await client.expect("project_deleted", "project_delete", { project_id });
    expect(reply).toMatchObject({ project_id, data: {} });
    for (const one of [client, subscriber, stranger]) {
      await flushed(one);
      expect(lobby(one, "project_deleted", project_id)).toHaveLength(1);
    }
  });

  test("is refused while EXECUTING, and nothing is lost by trying", async () => {
    const app = await startApp();
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    await client.expect("project_state", "execute", { project_id, data: { prompt: "hang" } });
    expect((await refusal(client, "project_delete", { project_id })).code).toBe("PROCESS_ACTIVE");
    const killed = await client.expect("project_state", "agent_kill", { project_id });
    expect(killed.data.state).toBe("IDLE");
    await client.expect("project_deleted", "project_delete", { project_id });
    await flushed(client);
    expect(lobby(client, "project_deleted", project_id)).toHaveLength(1);
  });

  test("frees the places of those who had joined", async () => {
    const app = await startApp();
    const client = await app.client();
    const projects = await Promise.all(
      Array.from({ length: 16 }, async () => client.create(await app.directory())),
    );
    for (const project_id of projects)
      await client.expect("project_joined", "project_join", { project_id });
    for (const project_id of projects.slice(0, 2))
      await client.expect("project_deleted", "project_delete", { project_id });
    for (let more = 0; more < 2; more += 1) {
      const project_id = await client.create(await app.directory());
      await client.expect("project_joined", "project_join", { project_id });
    }
  });

  test("lets the same directory become another project, with a history of its own", async () => {
    const app = await startApp();
    const client = await app.client();
    const path = await app.directory();
    const before = await client.create(path);
    const { epoch } = await run(client, before, "say:hello");
    await client.expect("project_deleted", "project_delete", { project_id: before });
    const after = await client.expect("project_state", "project_create", { data: { path } });
    expect(after.data).toMatchObject({ last_seq: 0, session_id: null });
    expect(after.data.id).not.toBe(before);
    expect(after.data.epoch).not.toBe(epoch);
  });
});

test("the lobby hears of every change of state, also who has not joined", async () => {
  const app = await startApp();
  const [client, stranger] = [await app.client(), await app.client()];
  const project_id = await client.create(await app.directory());
  await run(client, project_id, "say:hello");
  await run(client, project_id, "error:it broke");
  await flushed(stranger);
  const heard = stranger.received.filter((frame) => frame.type === "project_updated");
  expect(heard.map(({ data }) => data.state)).toEqual([
    "IDLE",
    "EXECUTING",
    "IDLE",
    "EXECUTING",
    "ERROR",
  ]);
  expect(heard.every(({ seq }) => seq === undefined)).toBe(true);
  expect(stranger.events(project_id)).toEqual([]);
});

test("a 17th joined project is refused, for execute too, until one is left", async () => {
  const app = await startApp();
  const client = await app.client();
  const projects = await Promise.all(
    Array.from({ length: 17 }, async () => client.create(await app.directory())),
  );
  const last = projects.at(-1) ?? "";
  for (const project_id of projects.slice(0, 16))
    await client.expect("project_joined", "project_join", { project_id });
  const data = { prompt: "say:hello" };
  expect((await refusal(client, "project_join", { project_id: last })).code).toBe("RESOURCE_LIMIT");
  expect((await refusal(client, "execute", { project_id: last, data })).code).toBe(
    "RESOURCE_LIMIT",
  );
  const joined = projects[0] ?? "";
  await client.expect("project_joined", "project_join", { project_id: joined });
  await run(client, joined, "say:one that is joined may run");
  await client.expect("project_left", "project_leave", { project_id: joined });
  expect((await run(client, last, "say:hello")).state).toBe("IDLE");
});

test("a restart changes nothing: states, sessions, usage, epoch and numbers go on", async () => {
  const before: Record<string, ProjectState> = {};
  const paths = { idle: "", failed: "", fresh: "" };
  {
    await using app = await testApp({}, { home });
    const client = await app.client();
    for (const name of ["idle", "failed", "fresh"] as const)
      paths[name] = await app.directory(name);
    const idle = await client.create(paths.idle);
    const failed = await client.create(paths.failed);
    const fresh = await client.create(paths.fresh, { trusted: true });
    await run(client, idle, "say:one");
    await run(client, idle, "say:two");
    await run(client, failed, "error:it broke");
    const { data } = await client.expect("project_list_response", "project_list");
    for (const state of data.projects) before[state.id] = state;
    expect(before).toMatchObject({
      [idle]: { state: "IDLE", usage: { runs: 2 }, session_id: expect.any(String) },
      [failed]: { state: "ERROR", error: { code: "EXECUTION_FAILED" }, usage: { runs: 1 } },
      [fresh]: { state: "IDLE", last_seq: 0, trusted: true },
    });
  }
  const app = await startApp();
  const client = await app.client();
  const { data } = await client.expect("project_list_response", "project_list");
  expect(Object.fromEntries(data.projects.map((state) => [state.id, state]))).toEqual(before);

  for (const { id, last_seq, epoch, session_id } of data.projects) {
    const state = await run(client, id, "say:again");
    expect(client.events(id)[0]).toMatchObject({ type: "user_message", seq: last_seq + 1 });
    expect(state).toMatchObject({ state: "IDLE", epoch, error: null });
    if (session_id) expect(state.session_id).toBe(session_id);
  }
});

describe("metadata that cannot be read", () => {
  const damages: [string, (text: string) => string][] = [
    ["is no JSON", (text) => text.slice(0, -20)],
    ["lacks a field", (text) => text.replace('"created_at"', '"made_at"')],
    ["is empty", () => ""],
  ];
  test.each(damages)("that %s leaves out that one project, and says so", async (_, damage) => {
    let [broken, whole] = ["", ""];
    {
      await using app = await testApp({}, { home });
      const client = await app.client();
      broken = await client.create(await app.directory("broken"));
      whole = await client.create(await app.directory("whole"));
      await run(client, broken, "say:precious");
    }
    const file = join(home, "data", "projects", broken, "metadata.json");
    const damaged = damage(readFileSync(file, "utf8"));
    writeFileSync(file, damaged);
    const logs = readdirSync(join(home, "data", "projects", broken, "logs"));

    const app = await startApp();
    const client = await app.client();
    const { data } = await client.expect("project_list_response", "project_list");
    expect(data.projects.map(({ id }) => id)).toEqual([whole]);
    const health = await client.expect("health_status", "health");
    expect(health.data.problems).toEqual([expect.stringContaining(broken)]);
    expect((await run(client, whole, "say:works")).state).toBe("IDLE");
    expect((await refusal(client, "project_join", { project_id: broken })).code).toBe(
      "PROJECT_NOT_FOUND",
    );
    expect(readFileSync(file, "utf8")).toBe(damaged);
    expect(readdirSync(join(home, "data", "projects", broken, "logs"))).toEqual(logs);
  });
});

test("a second server on the same data directory is refused, and says who has it", async () => {
  await using first = await ServerProcess.start({ home });
  const second = spawnServer({ home });
  const said = await new Response(second.stderr).text();
  expect(await second.exited).toBe(1);
  expect(said).toContain("Cannot use the data directory");
  expect(said).toContain(`process ${first.pid}`);
  expect(said).not.toContain("    at ");
  expect(await first.stop()).toBe(0);
  expect(existsSync(join(home, "data", "server.lock"))).toBe(false);
  await using next = await ServerProcess.start({ home });
  expect(next.pid).not.toBe(first.pid);
});
