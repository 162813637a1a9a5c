import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { ServerData } from "../src/contract/messages.ts";
import { AgentLog } from "./support/agent-log.ts";
import { scratch, type TestApp, testApp } from "./support/app.ts";
import type { Client } from "./support/client.ts";

setDefaultTimeout(60_000);

/** Runs until somebody answers what it asks. */
const busy = 'tool:Bash:{"command":"make"}';

let stack: AsyncDisposableStack;
let home: string;
let app: TestApp;
let log: AgentLog;
let client: Client;
let project_id: string;
let path: string;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  home = await scratch(stack);
  log = new AgentLog(home);
});

afterEach(() => stack.disposeAsync());

async function setUp(settings: Record<string, string> = {}): Promise<void> {
  app = stack.use(await testApp(settings, { home, ladder: { inputMs: 1_000, terminateMs: 200 } }));
  client = await app.client();
  path = await app.directory("project");
  project_id = await client.create(path);
}

async function restart(settings: Record<string, string> = {}): Promise<void> {
  await app[Symbol.asyncDispose]();
  app = stack.use(await testApp(settings, { home }));
  client = await app.client();
}

const set = (data: object) => client.ask("agent_set", { project_id, data });
const run = (prompt: string, rest: object = {}) => client.run(project_id, prompt, rest);

async function execute(prompt: string, rest: object = {}) {
  const data = { prompt, ...rest };
  return (await client.expect("project_state", "execute", { project_id, data })).data;
}

/** Starts a run that stays until it is let go. */
async function occupy(rest: object = {}): Promise<() => Promise<unknown>> {
  await execute(busy, rest);
  const { permission_id } = (await client.next("permission_request")).data;
  return async () => {
    await client.expect("permission_resolved", "permission_response", {
      project_id,
      data: { permission_id, decision: "allow" },
    });
    return await client.settled(project_id);
  };
}

/** What a live agent was told to change, oldest first. */
const controls = () =>
  log.told("control_request").map(({ request }) => {
    const { subtype, mode, model } = Object(request);
    return [subtype, mode ?? model];
  });

const argument = (name: string) =>
  log
    .last()
    .argv.find((word) => word.startsWith(`--${name}=`))
    ?.slice(name.length + 3);

async function state(): Promise<ServerData<"project_state"> | undefined> {
  const { data } = await client.expect("project_list_response", "project_list");
  return data.projects.find(({ id }) => id === project_id);
}

/** Makes the CLI's own record say that the trust dialog was accepted for a directory. */
async function accept(directory: string): Promise<void> {
  const file = join(home, ".claude", ".claude.json");
  await mkdir(dirname(file), { recursive: true });
  const projects = { [directory]: { hasTrustDialogAccepted: true } };
  await writeFile(file, JSON.stringify({ projects }));
}

describe("agent_set", () => {
  test("reaches the running agent at once, and every client hears of it", async () => {
    await setUp();
    const watcher = await app.client();
    await watcher.expect("project_joined", "project_join", { project_id });
    const release = await occupy();
    const reply = await set({ permission_mode: "acceptEdits", model: "sonnet" });
    const now = { state: "EXECUTING", permission_mode: "acceptEdits", model: "sonnet" };
    expect(reply).toMatchObject({ type: "project_state", data: now });
    expect(controls()).toEqual([
      ["set_permission_mode", "acceptEdits"],
      ["set_model", "sonnet"],
    ]);
    const event = await watcher.next("project_state", ({ data }) => data.model === "sonnet");
    await watcher.next(
      "project_state",
      ({ data, seq }) => seq !== undefined && data.permission_mode === "acceptEdits",
    );
    expect(event.seq).toBeNumber();
    expect(await release()).toMatchObject({ ...now, state: "IDLE", error: null });
  });

  test("of a run holds for the next one, which the same agent takes", async () => {
    await setUp();
    const release = await occupy();
    await set({ permission_mode: "acceptEdits", model: "sonnet" });
    await release();
    // In this mode nobody is asked.
    expect(await run('tool:Write:{"file_path":"a.txt","content":"a"}')).toMatchObject({
      state: "IDLE",
      permission_mode: "acceptEdits",
    });
    expect(log.starts()).toHaveLength(1);
    expect(client.received.filter(({ type }) => type === "permission_request")).toHaveLength(1);
  });

  test("between runs holds for those that follow, after a restart too", async () => {
    await setUp();
    await run("say:one");
    const reply = await set({ permission_mode: "plan", model: "opus" });
    expect(reply.data).toMatchObject({ state: "IDLE", permission_mode: "plan", model: "opus" });
    await run("say:two");
    expect([argument("permission-mode"), argument("model")]).toEqual(["plan", "opus"]);
    await restart();
    expect(await state()).toMatchObject({ permission_mode: "plan", model: "opus" });
    await run("say:three");
    expect([argument("permission-mode"), argument("model")]).toEqual(["plan", "opus"]);
    expect(controls()).toEqual([]);
  });

  test("gives way to what a prompt says for itself, for that run alone", async () => {
    await setUp();
    await set({ permission_mode: "plan", model: "opus" });
    const options = { permission_mode: "acceptEdits", model: "haiku" };
    const release = await occupy({ options });
    expect(await state()).toMatchObject(options);
    expect([argument("permission-mode"), argument("model")]).toEqual(["acceptEdits", "haiku"]);
    expect(await release()).toMatchObject({ permission_mode: "plan", model: "opus" });
    await run("say:two");
    expect([argument("permission-mode"), argument("model")]).toEqual(["plan", "opus"]);
  });

  test("to null goes back to the configuration's, on a live agent as well", async () => {
    await setUp({ PA_CLAUDE_PERMISSION_MODE: "dontAsk", PA_CLAUDE_MODEL: "sonnet" });
    await set({ permission_mode: "default", model: "opus" });
    const release = await occupy();
    const reply = await set({ permission_mode: null, model: null });
    expect(reply.data).toMatchObject({ permission_mode: "dontAsk", model: "sonnet" });
    expect(controls()).toEqual([
      ["set_permission_mode", "dontAsk"],
      ["set_model", "sonnet"],
    ]);
    await release();
    await set({ permission_mode: "default" });
    const idle = await set({ permission_mode: null });
    expect(idle.data).toMatchObject({ permission_mode: "dontAsk", model: "sonnet" });
    await run("say:two");
    expect([argument("permission-mode"), argument("model")]).toEqual(["dontAsk", "sonnet"]);
  });

  test("changes only what it names", async () => {
    await setUp();
    await set({ permission_mode: "plan" });
    expect((await set({ model: "opus" })).data).toMatchObject({
      permission_mode: "plan",
      model: "opus",
    });
    const release = await occupy({ options: { permission_mode: "default" } });
    await set({ model: "haiku" });
    expect(controls()).toEqual([["set_model", "haiku"]]);
    await release();
  });

  test("holds for a run whose agent is still to be started", async () => {
    await setUp();
    // It takes its time to end, because of what it does in the background.
    await run("background:600000");
    await execute('tool:Write:{"file_path":"a.txt"}', { options: { model: "opus" } });
    const reply = await set({ permission_mode: "acceptEdits" });
    expect(reply.data).toMatchObject({ permission_mode: "acceptEdits", model: "opus" });
    expect(
      await client.settled(project_id, reply.type === "project_state" ? reply.data.last_seq : 0),
    ).toMatchObject({ state: "IDLE", error: null });
    expect(log.starts()).toHaveLength(2);
    expect([argument("permission-mode"), argument("model")]).toEqual(["acceptEdits", "opus"]);
  });

  test("reaches an agent that began its turn by itself", async () => {
    await setUp();
    await run(`background:1:${busy}`);
    const { permission_id } = (await client.next("permission_request")).data;
    const reply = await set({ permission_mode: "acceptEdits" });
    expect(reply.data).toMatchObject({ state: "EXECUTING", permission_mode: "acceptEdits" });
    expect(controls()).toEqual([["set_permission_mode", "acceptEdits"]]);
    await client.expect("permission_resolved", "permission_response", {
      project_id,
      data: { permission_id, decision: "deny" },
    });
  });

  test.each(["bypassPermissions", "auto"])(
    "to %s needs the server's own consent, running or not",
    async (permission_mode) => {
      await setUp({ IS_SANDBOX: "1" });
      const refusal = { type: "error", data: { code: "FORBIDDEN" } };
      expect(await set({ permission_mode })).toMatchObject(refusal);
      const release = await occupy();
      expect(await set({ permission_mode, model: "opus" })).toMatchObject(refusal);
      expect(controls()).toEqual([]);
      expect(await release()).toMatchObject({ permission_mode: "default", model: null });
      await restart({ PA_CLAUDE_ALLOW_BYPASS: "true", IS_SANDBOX: "1" });
      expect((await set({ permission_mode })).data).toMatchObject({ permission_mode });
      await run("say:two");
      expect(argument("permission-mode")).toBe(permission_mode);
    },
  );

  test("is no longer in force when the server no longer consents", async () => {
    await setUp({ PA_CLAUDE_ALLOW_BYPASS: "true" });
    await set({ permission_mode: "auto" });
    await restart();
    const refused = await client.ask("execute", { project_id, data: { prompt: "say:no" } });
    expect(refused).toMatchObject({ type: "error", data: { code: "FORBIDDEN" } });
    await set({ permission_mode: null });
    expect(await run("say:yes")).toMatchObject({ state: "IDLE" });
  });

  const wrong: [object, string][] = [
    [{ permission_mode: "nonsense" }, "permission_mode"],
    [{ model: "--settings={}" }, "model"],
    [{ model: "" }, "model"],
    [{ mode: "plan" }, "mode"],
  ];
  test.each(wrong)(
    "is checked by us, because the agent takes anything: %p",
    async (data, field) => {
      await setUp();
      const release = await occupy();
      expect(await set(data)).toMatchObject({
        type: "error",
        data: { code: "INVALID_MESSAGE", details: { path: field } },
      });
      await release();
      expect(controls()).toEqual([]);
    },
  );

  test("that the agent refuses is an error with its words, and changes nothing", async () => {
    await setUp({ PA_CLAUDE_ALLOW_BYPASS: "true", IS_SANDBOX: "1" });
    await set({ permission_mode: "acceptEdits" });
    const release = await occupy();
    const refused = await set({ permission_mode: "bypassPermissions" });
    expect(refused).toMatchObject({
      type: "error",
      data: {
        code: "EXECUTION_FAILED",
        message: expect.stringContaining("Cannot set permission mode to bypassPermissions"),
      },
    });
    expect(await state()).toMatchObject({ state: "EXECUTING", permission_mode: "acceptEdits" });
    expect(await release()).toMatchObject({ state: "IDLE", permission_mode: "acceptEdits" });
  });

  test("that the agent dies over is an error, and changes nothing", async () => {
    await setUp();
    await occupy();
    process.kill(log.last().pid, "SIGSTOP");
    const changed = set({ model: "opus" });
    process.kill(log.last().pid, "SIGKILL");
    expect(await changed).toMatchObject({ type: "error", data: { code: "EXECUTION_FAILED" } });
    expect(await client.settled(project_id)).toMatchObject({ state: "ERROR" });
    expect(await state()).toMatchObject({ model: null });
  });
});

describe("trust", () => {
  const closed = ["--setting-sources=user", "--strict-mcp-config"];
  /** Whether the last agent was kept from the directory's own settings, in both ways or neither. */
  function isClosed(): boolean {
    const { argv, env } = log.last();
    const found = closed.filter((word) => argv.includes(word));
    const git = env.includes("CLAUDE_CODE_DISABLE_GIT_INSTRUCTIONS");
    expect([found, git]).toEqual(found.length > 0 ? [closed, true] : [[], false]);
    return git;
  }

  test("is not given to a directory by itself", async () => {
    await setUp();
    expect(await run("say:one")).toMatchObject({ trusted: false });
    expect(isClosed()).toBeTrue();
  });

  test("can be given with project_create, or later, and taken again", async () => {
    await setUp();
    const given = await client.create(await app.directory(), { trusted: true });
    expect(await client.run(given, "say:one")).toMatchObject({ trusted: true });
    expect(isClosed()).toBeFalse();
    for (const trusted of [true, false]) {
      const reply = await client.expect("project_state", "project_trust", {
        project_id,
        data: { trusted },
      });
      expect(reply.data).toMatchObject({ state: "IDLE", trusted });
      expect(await run("say:two")).toMatchObject({ trusted });
      expect(isClosed()).toBe(!trusted);
    }
  });

  test.each(["the directory", "a directory above"])(
    "that the CLI recorded for %s is honoured, unless somebody says otherwise",
    async (which) => {
      const work = join(home, "work");
      await accept(which === "the directory" ? join(work, "project") : work);
      await setUp();
      expect(await run("say:one")).toMatchObject({ trusted: true });
      expect(isClosed()).toBeFalse();
      await client.expect("project_state", "project_trust", {
        project_id,
        data: { trusted: false },
      });
      expect(await run("say:two")).toMatchObject({ trusted: false });
      expect(isClosed()).toBeTrue();
      await restart();
      expect(await run("say:three")).toMatchObject({ trusted: false });
      expect(isClosed()).toBeTrue();
    },
  );

  test("that the CLI recorded for another directory means nothing", async () => {
    await accept(join(home, "work", "proj"));
    await setUp();
    expect(await run("say:one")).toMatchObject({ trusted: false });
    expect(isClosed()).toBeTrue();
  });

  test("that the CLI records later is followed by the next run, with a new agent", async () => {
    await setUp();
    await run("say:one");
    expect(isClosed()).toBeTrue();
    await accept(path);
    await run("say:two");
    expect(isClosed()).toBeFalse();
    expect(log.starts()).toHaveLength(2);
  });

  test("is kept over a restart, given or taken", async () => {
    await setUp();
    for (const trusted of [true, false]) {
      await client.expect("project_state", "project_trust", { project_id, data: { trusted } });
      await restart();
      expect(await state()).toMatchObject({ trusted });
      await run("say:again");
      expect(isClosed()).toBe(!trusted);
    }
  });
});

describe("session_resume", () => {
  test("of a session that this directory does not have is SESSION_NOT_FOUND", async () => {
    await setUp();
    const { session_id } = await run("say:one");
    for (const fork of [false, true])
      expect(
        await client.ask("session_resume", {
          project_id,
          data: { session_id: crypto.randomUUID(), fork },
        }),
      ).toMatchObject({ type: "error", data: { code: "SESSION_NOT_FOUND" } });
    expect(await state()).toMatchObject({ state: "IDLE", session_id });
    expect(await run("say:two")).toMatchObject({ session_id });
    expect(log.starts()).toHaveLength(1);
  });

  test("goes on with another session of the directory, in a new process", async () => {
    await setUp();
    const { session_id: left } = await run("say:one");
    await client.expect("session_reset", "agent_new_session", { project_id });
    const { session_id } = await run("say:two");
    const reply = await client.expect("project_state", "session_resume", {
      project_id,
      data: { session_id: left },
    });
    expect(reply.data).toMatchObject({
      state: "IDLE",
      session_id: left,
      resume_command: expect.stringContaining(`--resume ${left}`),
    });
    expect(await run("say:three")).toMatchObject({ session_id: left });
    expect(argument("resume")).toBe(left ?? "");
    expect(log.last().argv).not.toContain("--fork-session");
    expect(session_id).not.toBe(left);
    expect(log.overlaps().flatMap(({ others }) => others)).toEqual([]);
  });

  test("with fork goes on with a copy, whose id is the project's from then on", async () => {
    await setUp();
    const { session_id } = await run("say:one");
    await client.expect("project_state", "session_resume", {
      project_id,
      data: { session_id, fork: true },
    });
    await restart();
    const copy = await run("say:two");
    expect(argument("resume")).toBe(session_id ?? "");
    expect(log.last().argv).toContain("--fork-session");
    expect(copy.session_id).not.toBe(session_id);
    await restart();
    expect(await run("say:three")).toMatchObject({ session_id: copy.session_id });
    expect(argument("resume")).toBe(copy.session_id ?? "");
    expect(log.last().argv).not.toContain("--fork-session");
  });

  test("while a run is in progress is PROCESS_ACTIVE", async () => {
    await setUp();
    const release = await occupy();
    const refused = await client.ask("session_resume", {
      project_id,
      data: { session_id: crypto.randomUUID() },
    });
    expect(refused).toMatchObject({ type: "error", data: { code: "PROCESS_ACTIVE" } });
    await release();
  });

  test.each(["../../etc/passwd", "--settings={}", ""])(
    "is refused for the id %p",
    async (session_id) => {
      await setUp();
      const refused = await client.ask("session_resume", { project_id, data: { session_id } });
      expect(refused).toMatchObject({
        type: "error",
        data: { code: "INVALID_MESSAGE", details: { path: "session_id" } },
      });
    },
  );
});
