import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { AgentLog } from "./support/agent-log.ts";
import { scratch } from "./support/app.ts";
import { carriers, until } from "./support/claude-lab.ts";
import { Client } from "./support/client.ts";
import { ServerProcess, spawnServer } from "./support/server-process.ts";

setDefaultTimeout(15_000);

let stack: AsyncDisposableStack;
let home: string;
let agents: AgentLog;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  home = await scratch(stack);
  agents = new AgentLog(home);
  // Whatever a failed test leaves behind goes before the folder does.
  stack.defer(async () => {
    for (const pid of await left()) process.kill(pid, "SIGKILL");
  });
});

afterEach(() => stack.disposeAsync());

/** Processes of any agent that was started here. */
async function left(): Promise<number[]> {
  return (await Promise.all(agents.starts().map(({ marker }) => carriers(marker)))).flat();
}

async function start(settings: Readonly<Record<string, string>> = {}): Promise<ServerProcess> {
  return stack.use(await ServerProcess.start({ home, settings }));
}

async function connect(server: ServerProcess): Promise<Client> {
  const client = stack.use(await Client.connect(server.url));
  client.patienceMs = 45_000;
  return client;
}

async function directory(name = "project"): Promise<string> {
  await mkdir(join(home, name), { recursive: true });
  return join(home, name);
}

/** A project with a run in progress. */
async function executing(client: Client, prompt: string): Promise<string> {
  const project_id = await client.create(await directory());
  await client.expect("project_state", "execute", { project_id, data: { prompt } });
  await until(() => agents.prompts().length > 0);
  return project_id;
}

/** The one project there is, and all that its log holds. */
async function lookAgain(server: ServerProcess) {
  const client = await connect(server);
  const { data: list } = await client.expect("project_list_response", "project_list");
  const [project] = list.projects;
  if (!project) throw new Error("Expected a project");
  const { data: page } = await client.expect("messages_response", "get_messages", {
    project_id: project.id,
  });
  return { client, project, messages: page.messages };
}

/** The exit code of a server that does not start, and what it says to the person who started it. */
async function refusal(settings: Readonly<Record<string, string>>) {
  const child = spawnServer({ home, settings });
  const [code, said] = await Promise.all([child.exited, child.stderr.text()]);
  return { code, said };
}

describe("a server without work", () => {
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const)
    test(`says goodbye and exits with 0 on ${signal}`, async () => {
      const server = await start();
      const clients = await Promise.all([connect(server), connect(server)]);
      const project_id = await clients[0].create(await directory());
      server.signal(signal);
      for (const client of clients) {
        const { data } = await client.next("server_shutdown");
        expect(data.reason).toBeString();
        expect(Date.parse(data.deadline)).toBeGreaterThan(0);
        expect(await client.closed).toMatchObject({ code: 1001 });
      }
      expect(await server.exited).toBe(0);
      const { project, client } = await lookAgain(await start());
      expect(project).toMatchObject({ id: project_id, state: "IDLE" });
      expect(await client.run(project_id, "say:hello")).toMatchObject({ state: "IDLE" });
    });

  test("ends the warm agents that it keeps", async () => {
    const server = await start();
    const client = await connect(server);
    await client.run(await client.create(await directory()), "leave\nsay:hello");
    expect(await server.stop()).toBe(0);
    expect(await left()).toEqual([]);
  });
});

describe("a server with a run in progress", () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const)
    test(`lets it end by itself on ${signal}, and takes no new work`, async () => {
      const server = await start({ PA_TIMEOUTS_SHUTDOWN: "10m" });
      const client = await connect(server);
      Bun.spawnSync(["mkfifo", join(home, "go")]);
      const project_id = await executing(client, `bash:cat ${join(home, "go")}`);
      server.signal(signal);
      await client.next("server_shutdown");
      const refused = { type: "error", data: { code: "SERVER_SHUTDOWN" } };
      const data = { prompt: "say:more", queue: true };
      expect(await client.ask("execute", { project_id, data })).toMatchObject(refused);
      const other = { path: await directory("other") };
      expect(await client.ask("project_create", { data: other })).toMatchObject(refused);
      await writeFile(join(home, "go"), "gone");
      expect(await client.settled(project_id)).toMatchObject({ state: "IDLE", error: null });
      expect(await client.closed).toMatchObject({ code: 1001 });
      expect(await server.exited).toBe(0);
      expect(await left()).toEqual([]);
    });

  test("stops it at the deadline, says so, and exits with 0", async () => {
    const server = await start({ PA_TIMEOUTS_SHUTDOWN: "500ms" });
    const client = await connect(server);
    const project_id = await executing(client, "leave\nbash:sleep 300");
    server.signal("SIGTERM");
    const state = await client.settled(project_id);
    const error = {
      code: "EXECUTION_FAILED",
      message: "Cannot finish the run: the server was stopped",
    };
    expect(state).toMatchObject({ state: "ERROR", error });
    const types = client.events(project_id).map(({ type }) => type);
    expect(types.slice(-2)).toEqual(["error", "project_state"]);
    expect(await client.closed).toMatchObject({ code: 1001 });
    expect(await server.exited).toBe(0);
    expect(await left()).toEqual([]);
    const { project } = await lookAgain(await start());
    expect(project).toMatchObject({ state: "ERROR", error, last_seq: state.last_seq });
  });

  for (const signal of ["SIGTERM", "SIGINT"] as const)
    test(`ends at once on a second ${signal}; the next start settles what is left`, async () => {
      const server = await start({ PA_TIMEOUTS_SHUTDOWN: "10m" });
      const client = await connect(server);
      const trap = `trap "" TERM INT HUP; while :; do sleep 1; done`;
      await executing(client, `child:${trap}\nstubborn`);
      server.signal(signal);
      await client.next("server_shutdown");
      server.signal(signal);
      console.log("signalled", performance.now());
      const st = await Promise.race([server.exited, Bun.sleep(8000).then(() => "HANG")]);
      if (st === "HANG")
        console.log("HANG", server.log, await Bun.$`ps -ef | grep -v root.*\\[`.text());
      expect(st).toBe(1);
      console.log("exited", performance.now(), await Bun.$`ls ${home}/data/runs`.text());
      const { project } = await lookAgain(await start());
      expect(project).toMatchObject({ state: "ERROR", error: { code: "EXECUTION_FAILED" } });
      console.log("restarted", performance.now());
      const dl = performance.now() + 8000;
      while ((await left()).length > 0 && performance.now() < dl) await Bun.sleep(20);
      for (const pid of await left())
        console.log(
          "LEFT",
          pid,
          await Bun.$`tr "\\0" " " < /proc/${pid}/cmdline; grep -E "State|PPid" /proc/${pid}/status; ls ${home}/data/runs; cat ${home}/agent.jsonl | cut -c1-300`.text(),
          server.log,
        );
      expect(await left()).toEqual([]);
    });
});

describe("after kill -9", () => {
  test("during a run nothing of it is left, it is an error with a reason, and is never run again", async () => {
    const server = await start();
    const client = await connect(server);
    const trap = `trap "" TERM INT HUP; while :; do sleep 1; done`;
    const project_id = await executing(client, `child:${trap}\nbash:sleep 300`);
    await until(() => agents.children().length === 2);
    await server.crash();
    expect((await left()).length).toBeGreaterThan(1);

    const { client: again, project, messages } = await lookAgain(await start());
    expect(project).toMatchObject({
      id: project_id,
      state: "ERROR",
      execution: null,
      error: {
        code: "EXECUTION_FAILED",
        message: "Cannot finish the run: the server went down while it was in progress",
      },
    });
    expect(messages.slice(-2).map(({ message }) => message)).toMatchObject([
      { type: "error", data: { code: "EXECUTION_FAILED", details: { reason: "server_crash" } } },
      { type: "project_state", data: { state: "ERROR" } },
    ]);
    await until(async () => (await left()).length === 0);
    expect(agents.prompts()).toHaveLength(1);
    const state = await again.run(project_id, "say:better");
    expect(state).toMatchObject({ state: "IDLE", error: null });
    expect(agents.prompts()).toHaveLength(2);
  });

  test("a project that was acknowledged is there", async () => {
    const server = await start();
    const project_id = await (await connect(server)).create(await directory());
    await server.crash();
    const { project } = await lookAgain(await start());
    expect(project).toMatchObject({ id: project_id, state: "IDLE", last_seq: 0 });
  });

  test("a prompt that was acknowledged is there once, and cannot be run twice", async () => {
    const server = await start();
    const client = await connect(server);
    const project_id = await client.create(await directory());
    const execution_id = crypto.randomUUID();
    const data = { prompt: "say:just once\nhang", execution_id };
    await client.expect("project_state", "execute", { project_id, data });
    await server.crash();
    const { client: again, project, messages } = await lookAgain(await start());
    expect(project).toMatchObject({ state: "ERROR", error: { code: "EXECUTION_FAILED" } });
    const prompts = messages.filter(({ direction }) => direction === "client");
    expect(prompts.map(({ message }) => message)).toMatchObject([{ type: "execute", data }]);
    const reply = await again.expect("execution_status", "execute", { project_id, data });
    expect(reply.data).toEqual({ execution_id, status: "failed" });
    expect(agents.prompts().length).toBeLessThan(2);
  });

  test("a project that was deleted stays deleted", async () => {
    const server = await start();
    const client = await connect(server);
    const project_id = await client.create(await directory());
    await client.run(project_id, "say:hello");
    await client.expect("project_deleted", "project_delete", { project_id });
    await server.crash();
    const next = await connect(await start());
    const { data } = await next.expect("project_list_response", "project_list");
    expect(data.projects).toEqual([]);
  });
});

describe("a mistake of the server's own that nobody catches", () => {
  test("is logged and counted, and the run in progress goes on", async () => {
    const server = await start({
      BUN_OPTIONS: `--preload=${join(import.meta.dir, "support/throw-on-signal.ts")}`,
    });
    const client = await connect(server);
    Bun.spawnSync(["mkfifo", join(home, "go")]);
    const project_id = await executing(client, `bash:cat ${join(home, "go")}`);
    server.signal("SIGUSR2");
    await until(() => server.log.split("nobody caught this error").length === 3);
    await writeFile(join(home, "go"), "gone");
    expect(await client.settled(project_id)).toMatchObject({ state: "IDLE", error: null });
    expect(server.log).toContain("a rejection on purpose");
    expect(server.log).toContain("an exception on purpose");
    const metrics = await (await fetch(new URL("/metrics", server.url))).text();
    expect(metrics).toContain("pocket_agent_unhandled_errors_total 2");
    expect(await server.stop()).toBe(0);
  });
});

describe("a server that cannot start", () => {
  test("because its port is taken says so, and exits with 1", async () => {
    const server = await start();
    const settings = { PA_SERVER_PORT: server.url.port, PA_DATA_DIR: join(home, "other") };
    const { code, said } = await refusal(settings);
    expect(code).toBe(1);
    expect(said).toContain(server.url.port);
    expect(said).toMatch(/^Cannot listen on .*: the port is in use/);
    expect(said.trimEnd().split("\n")).toHaveLength(1);
  });

  test("because its data is in use says by whom, and exits with 1", async () => {
    const server = await start();
    const { code, said } = await refusal({});
    expect(code).toBe(1);
    expect(said).toContain(`another server (process ${server.pid},`);
  });

  test("because of its settings exits with 2", async () => {
    const { code, said } = await refusal({ PA_EXECUTION_TIMEOUT: "soon" });
    expect(code).toBe(2);
    expect(said).toContain("PA_EXECUTION_TIMEOUT");
  });
});
