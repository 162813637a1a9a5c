import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import type { ServerData } from "../src/contract/messages.ts";
import { AgentLog } from "./support/agent-log.ts";
import { type TestApp, testApp } from "./support/app.ts";
import type { Client, Frame } from "./support/client.ts";

setDefaultTimeout(60_000);

type State = ServerData<"project_state">;

let stack: AsyncDisposableStack;
let app: TestApp;
let log: AgentLog;
let client: Client;
let project_id: string;

beforeEach(() => {
  stack = new AsyncDisposableStack();
});

afterEach(() => stack.disposeAsync());

async function setUp(settings: Record<string, string> = {}): Promise<void> {
  // A background task would be waited for: nobody has that much time here.
  app = stack.use(await testApp(settings, { ladder: { inputMs: 2_000, terminateMs: 200 } }));
  log = new AgentLog(app.home);
  client = await app.client();
  project_id = await client.create(await app.directory());
}

const run = (prompt: string, rest: object = {}) => client.run(project_id, prompt, rest);

async function until(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = AbortSignal.timeout(20_000);
  while (!(await condition())) {
    if (deadline.aborted) throw new Error(`It never happened: ${what}`);
    await Bun.sleep(10);
  }
}

const ended = (pid: number) =>
  until(`the agent ${pid} ends`, () => log.all("exit").some((exit) => exit["pid"] === pid));

async function metric(name: string): Promise<number> {
  const line = new RegExp(`^pocket_agent_${name} (\\S+)$`, "m").exec(await app.metrics.text());
  return Number(line?.[1]);
}

const argument = (name: string, { argv } = log.last()) =>
  argv.find((word) => word.startsWith(`--${name}=`))?.slice(name.length + 3);

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    // There is no such process.
    return false;
  }
}

/** The states that the log tells of, oldest first. */
const states = (by = client): State[] =>
  by.events(project_id).flatMap((frame) => (frame.type === "project_state" ? [frame.data] : []));

const nextState = async (state: State["state"]): Promise<Frame<"project_state">> =>
  client.next("project_state", (frame) => frame.seq !== undefined && frame.data.state === state);

describe("a warm agent", () => {
  test("takes the next prompt with the same options, in the same session", async () => {
    await setUp();
    const options = { model: "opus", allowed_tools: ["Read"] };
    const first = await run("say:one", { options });
    const second = await run("say:two", { options: { allowed_tools: ["Read"], model: "opus" } });
    expect(second.session_id).toBe(first.session_id);
    expect(log.starts()).toHaveLength(1);
    expect(log.prompts()).toHaveLength(2);
    expect(await metric("warm_hits_total")).toBe(1);
    expect(await metric("warm_misses_total")).toBe(1);
    expect(await metric("processes_warm")).toBe(1);
  });

  test("takes the next prompt after a failure and a refusal too", async () => {
    await setUp();
    expect(await run("error:API Error: 400")).toMatchObject({ state: "ERROR" });
    expect(await run("maxturns")).toMatchObject({ state: "ERROR" });
    expect(await run("say:on")).toMatchObject({ state: "IDLE", error: null });
    expect(log.starts()).toHaveLength(1);
  });

  const changes: [string, object, string][] = [
    ["the model", { model: "sonnet" }, "--model=sonnet"],
    ["the permission mode", { permission_mode: "plan" }, "--permission-mode=plan"],
    ["a tool rule", { allowed_tools: ["Bash(make)"] }, "--allowed-tools=Bash(make)"],
    ["the system prompt", { append_system_prompt: "Be kind" }, "--append-system-prompt=Be kind"],
  ];
  test.each(changes)(
    "is replaced when %s changes, and the session goes on",
    async (_, options, word) => {
      await setUp();
      const first = await run("say:one");
      const second = await run("say:two", { options });
      expect(second.session_id).toBe(first.session_id);
      expect(argument("resume")).toBe(first.session_id ?? "");
      expect(log.last().argv).toContain(word);
      // What was asked for once is not asked for again.
      await run("say:three");
      expect(log.last().argv).not.toContain(word);
      expect(log.overlaps().flatMap(({ others }) => others)).toEqual([]);
    },
  );

  test("is replaced when the directory's trust changes", async () => {
    await setUp();
    await run("say:one");
    const untrusted = log.last();
    expect(untrusted.argv).toContain("--setting-sources=user");
    await client.expect("project_state", "project_trust", { project_id, data: { trusted: true } });
    await ended(untrusted.pid);
    await run("say:two");
    expect(log.last().argv).not.toContain("--setting-sources=user");
    expect(argument("resume")).toBe(argument("session-id", untrusted));
  });

  test("keeps its trust for the run in progress; the next run has the new one", async () => {
    await setUp();
    await client.expect("project_state", "execute", { project_id, data: { prompt: "sleep:200" } });
    const reply = await client.expect("project_state", "project_trust", {
      project_id,
      data: { trusted: true },
    });
    expect(reply.data).toMatchObject({ state: "EXECUTING", trusted: true });
    expect(await client.settled(project_id)).toMatchObject({ state: "IDLE", error: null });
    await run("say:two");
    expect(log.starts()).toHaveLength(2);
    expect(log.last().argv).not.toContain("--setting-sources=user");
  });

  test("is ended by agent_new_session, and the next prompt begins another conversation", async () => {
    await setUp();
    const first = await run("say:one");
    const { pid } = log.last();
    const reset = await client.expect("session_reset", "agent_new_session", { project_id });
    expect(reset.data.previous_session_id).toBe(first.session_id);
    await ended(pid);
    const second = await run("say:two");
    expect(second.session_id).not.toBe(first.session_id);
    expect(argument("resume")).toBeUndefined();
    expect(argument("session-id")).toBe(second.session_id ?? "");
  });

  test("is ended by claude.idle_timeout, and the next prompt resumes", async () => {
    await setUp({ PA_CLAUDE_IDLE_TIMEOUT: "50ms" });
    const { session_id } = await run("say:one");
    await ended(log.last().pid);
    await until("it is not counted", async () => (await metric("processes_warm")) === 0);
    expect(await run("say:two")).toMatchObject({ state: "IDLE", session_id });
    expect(argument("resume")).toBe(session_id ?? "");
    expect(await metric("warm_hits_total")).toBe(0);
  });

  test("is none when claude.idle_timeout is 0", async () => {
    await setUp({ PA_CLAUDE_IDLE_TIMEOUT: "0" });
    const { session_id } = await run("say:one");
    await ended(log.last().pid);
    expect(await run("say:two")).toMatchObject({ state: "IDLE", session_id });
    expect(log.starts()).toHaveLength(2);
    expect(await metric("processes_warm")).toBe(0);
  });

  test("goes when there are more than claude.max_warm, the one idle for longest first", async () => {
    await setUp({ PA_CLAUDE_MAX_WARM: "2" });
    const others = [await app.directory(), await app.directory()];
    const [second = "", third = ""] = await Promise.all(others.map((path) => client.create(path)));
    const first = await run("say:one");
    await client.run(second, "say:two");
    // In use again: now the second is the one that has been idle for longest.
    await run("say:three");
    const [, middle] = log.starts();
    await client.run(third, "say:four");
    await ended(middle?.pid ?? 0);
    expect(await metric("warm_evictions_total")).toBe(1);
    expect(await metric("processes_warm")).toBe(2);
    await run("say:five");
    expect(log.starts()).toHaveLength(3);
    const again = await client.run(second, "say:six");
    expect(argument("resume")).toBe(again.session_id ?? "");
    expect(again.session_id).not.toBe(first.session_id);
  });

  test("that has died is replaced without anyone noticing", async () => {
    await setUp();
    const first = await run("exitafter:0");
    await ended(log.last().pid);
    expect(await run("say:two")).toMatchObject({ state: "IDLE", session_id: first.session_id });
    expect(log.starts()).toHaveLength(2);
    expect(argument("resume")).toBe(first.session_id ?? "");
    const types = client.events(project_id).map(({ type }) => type);
    expect(types).not.toContain("error");
    expect(types).not.toContain("notice");
  });

  test("that dies with the prompt in its hands is replaced without anyone noticing", async () => {
    await setUp();
    const first = await run("say:one");
    const { pid } = log.last();
    process.kill(pid, "SIGSTOP");
    const data = { prompt: "say:two" };
    await client.expect("project_state", "execute", { project_id, data });
    process.kill(pid, "SIGKILL");
    expect(await client.settled(project_id)).toMatchObject({
      state: "IDLE",
      session_id: first.session_id,
    });
    expect(log.starts()).toHaveLength(2);
    expect(client.events(project_id).map(({ type }) => type)).not.toContain("error");
    expect(client.events(project_id).filter(({ type }) => type === "user_message")).toHaveLength(2);
  });

  test("is gone when its project is deleted", async () => {
    await setUp();
    await run("background:600000");
    const { pid } = log.last();
    await client.expect("project_deleted", "project_delete", { project_id });
    expect(isAlive(pid)).toBeFalse();
    expect(await metric("processes_warm")).toBe(0);
  });

  test("is gone when the server is", async () => {
    await setUp();
    await run("say:one");
    const { pid } = log.last();
    expect(isAlive(pid)).toBeTrue();
    await app.app.drain("SIGTERM");
    await app.app[Symbol.asyncDispose]();
    expect(isAlive(pid)).toBeFalse();
  });
});

test("no two processes are ever on one session, however options and sessions change", async () => {
  await setUp({ PA_LIMITS_EXECUTE_RATE: "100000" });
  const models = ["opus", "sonnet", "haiku"];
  let executions = 0;
  for (let round = 0; round < 12; round += 1) {
    const data = { prompt: `say:${round}`, queue: true, options: { model: models[round % 3] } };
    const reply = await client.ask("execute", { project_id, data });
    expect(["project_state", "execution_queued"]).toContain(reply.type);
    executions += 1;
    if (round === 6) await client.expect("project_state", "agent_kill", { project_id });
  }
  // The kill has paused the queue; a plain prompt sets it going again.
  await client.ask("execute", { project_id, data: { prompt: "say:go", queue: true } });
  await client.next("project_state", ({ data }) => data.state === "IDLE" && data.queued === 0);
  await until(
    "all have run",
    () => states().filter(({ state }) => state === "IDLE").length > executions,
  );
  expect(log.starts().length).toBeGreaterThan(6);
  expect(log.overlaps().flatMap(({ others }) => others)).toEqual([]);
});

describe("a turn that the agent begins by itself", () => {
  test("makes the project EXECUTING with an id of its own, and IDLE again", async () => {
    // The task keeps the agent, however short it may idle.
    await setUp({ PA_CLAUDE_IDLE_TIMEOUT: "1ms" });
    const stranger = await app.client();
    const first = await run("background:200:say:it is done");
    expect(first).toMatchObject({ state: "IDLE", usage: { runs: 1 } });
    const begun = await nextState("EXECUTING");
    const execution_id = begun.data.execution?.id;
    const asked = await client.find(({ type }) => type === "user_message", "the prompt");
    expect(execution_id).toBeString();
    expect(asked.data).not.toMatchObject({ execution_id });
    expect(await client.settled(project_id)).toMatchObject({
      state: "IDLE",
      execution: null,
      error: null,
      session_id: first.session_id,
      usage: { runs: 2 },
    });
    expect(client.events(project_id).filter(({ type }) => type === "user_message")).toHaveLength(1);
    await stranger.next("project_updated", ({ data }) => data.execution?.id === execution_id);
    await ended(log.last().pid);
    expect(log.starts()).toHaveLength(1);
  });

  test("takes its turn like any run: a prompt is refused, or waits for it", async () => {
    await setUp();
    await run("background:1:sleep:300");
    await nextState("EXECUTING");
    const data = { prompt: "say:after" };
    const refused = await client.ask("execute", { project_id, data });
    expect(refused.data).toMatchObject({ code: "PROCESS_ACTIVE" });
    await client.expect("execution_queued", "execute", {
      project_id,
      data: { ...data, queue: true },
    });
    await client.next("user_message", (frame) => frame.data.prompt === "say:after");
    expect(await client.settled(project_id)).toMatchObject({ state: "IDLE", usage: { runs: 3 } });
    expect(log.starts()).toHaveLength(1);
  });

  test("can be killed, and ends IDLE with nothing of it left", async () => {
    await setUp();
    await run("background:1:hang");
    await nextState("EXECUTING");
    const killed = await client.expect("project_state", "agent_kill", { project_id });
    expect(killed.data).toMatchObject({ state: "IDLE", error: null, execution: null });
    expect(isAlive(log.last().pid)).toBeFalse();
    expect(await metric('executions_total{outcome="killed"}')).toBe(1);
  });

  test("can ask, and be answered", async () => {
    await setUp();
    await run('background:1:tool:Bash:{"command":"make"}');
    const begun = await nextState("EXECUTING");
    const { data } = await client.next("permission_request");
    expect(data.execution_id).toBe(begun.data.execution?.id ?? "");
    await client.expect("permission_resolved", "permission_response", {
      project_id,
      data: { permission_id: data.permission_id, decision: "allow" },
    });
    expect(await client.settled(project_id)).toMatchObject({ state: "IDLE", error: null });
  });

  test("has a result that completes nobody's prompt", async () => {
    await setUp();
    const foreign = {
      type: "result",
      subtype: "success",
      is_error: true,
      result: "not yours",
      origin: { kind: "task-notification" },
    };
    const state = await run(`junk:${JSON.stringify(foreign)}\nsay:yours`);
    expect(state).toMatchObject({ state: "IDLE", error: null, usage: { runs: 1 } });
    const said = client
      .events(project_id)
      .flatMap(({ type, data }) => (type === "agent_message" ? [JSON.stringify(data)] : []));
    const at = (text: string) => said.findIndex((line) => line.includes(text));
    expect(at('"text":"yours"')).toBeGreaterThan(at("not yours"));
    expect(states().map(({ state: each }) => each)).toEqual(["EXECUTING", "IDLE"]);
  });

  test("does not bring back the conversation that agent_new_session has left", async () => {
    await setUp();
    const { session_id } = await run("background:300:say:late");
    await client.expect("session_reset", "agent_new_session", { project_id });
    // The agent is on its way out, and its task still comes to an end.
    await nextState("EXECUTING");
    expect(await client.settled(project_id)).toMatchObject({ state: "IDLE", session_id: null });
    const after = await run("say:new");
    expect(after.session_id).not.toBe(session_id);
    expect(argument("session-id")).toBe(after.session_id ?? "");
  });
});

test("a kill that acknowledges an error ends the agent that is still warm", async () => {
  await setUp();
  expect(await run("error:no")).toMatchObject({ state: "ERROR" });
  const { pid } = log.last();
  expect(isAlive(pid)).toBeTrue();
  const killed = await client.expect("project_state", "agent_kill", { project_id });
  expect(killed.data).toMatchObject({ state: "IDLE", error: null });
  expect(isAlive(pid)).toBeFalse();
  expect(await metric("processes_warm")).toBe(0);
});

test("a kill without a run ends what goes on in the background", async () => {
  await setUp();
  await run("background:600000");
  const { pid } = log.last();
  const killed = await client.expect("project_state", "agent_kill", { project_id });
  expect(killed.data).toMatchObject({ state: "IDLE", error: null });
  expect(isAlive(pid)).toBeFalse();
  const again = await client.ask("agent_kill", { project_id });
  expect(again.data).toMatchObject({ code: "PROCESS_NOT_FOUND" });
});
