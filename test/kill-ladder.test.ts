import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { AgentLog } from "./support/agent-log.ts";
import { testApp, type TestApp } from "./support/app.ts";
import { carriers, until } from "./support/claude-lab.ts";
import type { Client } from "./support/client.ts";

setDefaultTimeout(60_000);

/** The steps of the ladder are the real ones; only the waits between them are short. */
const ladder = { interruptMs: 300, inputMs: 300, terminateMs: 300 };

interface Victim {
  readonly client: Client;
  readonly watcher: Client;
  readonly project_id: string;
  readonly agents: AgentLog;
}

/** A project that is executing, with a second client that only watches. */
async function executing(app: TestApp, prompt: string): Promise<Victim> {
  const [client, watcher] = await Promise.all([app.client(), app.client()]);
  for (const each of [client, watcher]) each.patienceMs = 30_000;
  const project_id = await client.create(await app.directory());
  await watcher.expect("project_joined", "project_join", { project_id });
  await client.expect("project_state", "execute", { project_id, data: { prompt } });
  return { client, watcher, project_id, agents: new AgentLog(app.home) };
}

/** Kills it and looks, right behind the reply, whether anything of it is left. */
async function killAndLook(victim: Victim, data: object = {}): Promise<void> {
  const { client, watcher, project_id, agents } = victim;
  const markers = agents.starts().map(({ marker }) => marker);
  expect(markers.length).toBeGreaterThan(0);
  const alive = await Promise.all(markers.map(carriers));
  expect(alive.flat().length).toBeGreaterThan(0);
  const { data: state } = await client.expect("project_state", "agent_kill", { project_id, data });
  expect(state).toMatchObject({ state: "IDLE", error: null, execution: null });
  expect((await Promise.all(markers.map(carriers))).flat()).toEqual([]);
  // What everybody sees is the same: the run was stopped, which is no error.
  expect(await watcher.settled(project_id)).toMatchObject({ state: "IDLE", error: null });
  expect(watcher.events(project_id).map(({ type }) => type)).not.toContain("error");
  const next = await client.run(project_id, "say:alive");
  expect(next).toMatchObject({ state: "IDLE", error: null });
}

/** Waits until the agent has said that its turn has begun; its traps are set by then. */
async function begun({ client, project_id }: Victim): Promise<void> {
  await client.find(
    ({ project_id: id, data }) =>
      id === project_id && "subtype" in data && data["subtype"] === "init",
    "the beginning of the turn",
  );
}

/** Each is an agent with something to kill, and how to tell that it is there. */
const cases: readonly { what: string; prompt: string; ready: (victim: Victim) => Promise<void> }[] =
  [
    {
      what: "a streaming agent",
      prompt: "stream:100000:1",
      ready: async ({ client, project_id }) => {
        await client.find(
          ({ project_id: id, data }) => id === project_id && JSON.stringify(data).includes("w20 "),
          "the stream",
        );
      },
    },
    { what: "a command", prompt: "bash:sleep 300", ready: childrenAlive(1) },
    {
      what: "a command that ignores every signal it can",
      prompt: `bash:trap "" TERM INT HUP; sleep 300`,
      ready: childrenAlive(1),
    },
    {
      what: "a command that ignores every signal, of an agent that ignores the interrupt",
      prompt: `ignoreinterrupt\nbash:trap "" TERM INT HUP; sleep 300`,
      ready: childrenAlive(1),
    },
    { what: "a daemon that was left behind", prompt: "leave\nhang", ready: childrenAlive(1) },
    {
      what: "a daemon that ignores every signal it can, and a command",
      prompt: `child:trap "" TERM INT HUP; while :; do sleep 1; done\nbash:sleep 300`,
      ready: childrenAlive(2),
    },
    { what: "an agent that hangs", prompt: "hang", ready: begun },
    { what: "an agent that hangs before it says anything", prompt: "hanginit", ready: prompted },
    { what: "an agent that ignores everything", prompt: "stubborn", ready: begun },
    { what: "an agent that ignores interrupts", prompt: "ignoreinterrupt\nhang", ready: begun },
    {
      what: "an agent that was stopped with SIGSTOP",
      prompt: "bash:sleep 300",
      ready: async (victim) => {
        await childrenAlive(1)(victim);
        process.kill(victim.agents.last().pid, "SIGSTOP");
      },
    },
  ];

/** Waits until the agent has started so many processes. */
function childrenAlive(count: number) {
  return ({ agents }: Victim) => until(() => agents.children().length >= count);
}

function prompted({ agents }: Victim): Promise<void> {
  return until(() => agents.prompts().length > 0);
}

describe("agent_kill leaves nothing of", () => {
  for (const { what, prompt, ready } of cases)
    test.each([false, true])(`${what} (force: %p)`, async (force) => {
      await using app = await testApp({}, { ladder });
      const victim = await executing(app, prompt);
      await ready(victim);
      await killAndLook(victim, { force });
    });
});

describe("agent_kill", () => {
  test("finds a run that was asked for in the same breath", async () => {
    await using app = await testApp({}, { ladder });
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    client.send("execute", { project_id, data: { prompt: "hang" }, request_id: "run" });
    client.send("agent_kill", { project_id, request_id: "kill" });
    const [run, kill] = await Promise.all(
      ["run", "kill"].map((id) => client.find(({ request_id }) => request_id === id, id)),
    );
    expect(run).toMatchObject({ type: "project_state", data: { state: "EXECUTING" } });
    expect(kill).toMatchObject({ type: "project_state", data: { state: "IDLE" } });
    const markers = new AgentLog(app.home).starts().map(({ marker }) => marker);
    expect((await Promise.all(markers.map(carriers))).flat()).toEqual([]);
    expect(await client.run(project_id, "say:alive")).toMatchObject({ state: "IDLE" });
  });

  test("is answered twice when it is sent twice, and stops one run", async () => {
    await using app = await testApp({}, { ladder });
    const victim = await executing(app, "stubborn");
    const { client, watcher, project_id } = victim;
    await begun(victim);
    const [first, second] = await Promise.all([
      client.ask("agent_kill", { project_id }),
      watcher.ask("agent_kill", { project_id }),
    ]);
    for (const reply of [first, second])
      expect(reply).toMatchObject({ type: "project_state", data: { state: "IDLE" } });
    const states = client
      .events(project_id)
      .flatMap(({ type, data }) => (type === "project_state" ? [data.state] : []));
    expect(states).toEqual(["EXECUTING", "IDLE"]);
  });

  test("with force waits for no step of the ladder, not even one that was begun", async () => {
    // Each step alone would outlast the test.
    const forever = { interruptMs: 3_600_000, inputMs: 3_600_000, terminateMs: 3_600_000 };
    await using app = await testApp({}, { ladder: forever });
    const victim = await executing(app, "stubborn");
    const { client, watcher, project_id } = victim;
    await begun(victim);
    const patient = client.ask("agent_kill", { project_id });
    const forced = watcher.ask("agent_kill", { project_id, data: { force: true } });
    for (const reply of await Promise.all([patient, forced]))
      expect(reply).toMatchObject({ type: "project_state", data: { state: "IDLE" } });
  });

  test("acknowledges an error when nothing is running", async () => {
    await using app = await testApp();
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    expect(await client.run(project_id, "error:no")).toMatchObject({ state: "ERROR" });
    const reply = await client.expect("project_state", "agent_kill", { project_id });
    expect(reply.data).toMatchObject({ state: "IDLE", error: null });
    expect(await client.settled(project_id)).toMatchObject({ state: "IDLE", error: null });
  });

  test("is PROCESS_NOT_FOUND when nothing is running, before and after a run", async () => {
    await using app = await testApp();
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const refused = { type: "error", data: { code: "PROCESS_NOT_FOUND" } };
    expect(await client.ask("agent_kill", { project_id })).toMatchObject(refused);
    await client.run(project_id, "say:hello");
    expect(await client.ask("agent_kill", { project_id })).toMatchObject(refused);
    expect(await client.ask("agent_kill", { project_id: crypto.randomUUID() })).toMatchObject({
      type: "error",
      data: { code: "PROJECT_NOT_FOUND" },
    });
  });
});
