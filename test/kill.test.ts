import { expect, test } from "bun:test";
import { agentsOf, agentsUntil } from "./support/agents.ts";
import { testApp } from "./support/app.ts";

/** What the agent is doing when it is stopped, and how to know that it does it. */
const situations = [
  { name: "streams", prompt: "stream:1000:20", processes: 1 },
  { name: "runs a command", prompt: "bash:sleep 300", processes: 2 },
  {
    name: "runs a command that traps",
    prompt: 'bash:trap "" TERM INT HUP; sleep 300',
    processes: 2,
  },
  { name: "has left a daemon", prompt: "leave\nhang", processes: 2 },
  { name: "hangs", prompt: "hang", processes: 1 },
  { name: "hangs before its first line", prompt: "hanginit", processes: 1 },
  { name: "does not hear an interrupt", prompt: "ignoreinterrupt\nhang", processes: 1 },
] as const;

async function running(prompt: string) {
  const app = await testApp();
  const client = await app.client();
  const project_id = await client.create(await app.directory());
  const state = await client.expect("project_state", "execute", { project_id, data: { prompt } });
  expect(state.data.state).toBe("EXECUTING");
  return { app, client, project_id };
}

test.each(situations)(
  "agent_kill leaves nothing of an agent that $name",
  async ({ prompt, processes }) => {
    const { app, client, project_id } = await running(prompt);
    await using _ = app;
    await agentsUntil(app.home, (agents) => agents.length >= processes);
    const { data } = await client.expect("project_state", "agent_kill", { project_id });
    expect(await agentsOf(app.home)).toEqual([]);
    expect(data).toMatchObject({ state: "IDLE", error: null, execution: null });
    expect(await client.settled(project_id)).toMatchObject({ state: "IDLE" });
  },
  30_000,
);

test.each([
  { name: "ignores everything that can be ignored", prompt: "stubborn" },
  { name: "is stopped by SIGSTOP", prompt: "bash:sleep 300" },
])(
  "agent_kill with force ends an agent that $name",
  async ({ name, prompt }) => {
    const { app, client, project_id } = await running(prompt);
    await using _ = app;
    await agentsUntil(app.home, (agents) => agents.length > 0);
    const agents = await agentsOf(app.home);
    if (name.includes("SIGSTOP")) for (const { pid } of agents) process.kill(pid, "SIGSTOP");
    await client.expect("project_state", "agent_kill", { project_id, data: { force: true } });
    expect(await agentsOf(app.home)).toEqual([]);
  },
  30_000,
);

test("agent_kill right behind execute finds the run, before there is a process", async () => {
  await using app = await testApp();
  const client = await app.client();
  const project_id = await client.create(await app.directory());
  client.send("execute", { project_id, request_id: "x", data: { prompt: "hang" } });
  client.send("agent_kill", { project_id, request_id: "k" });
  const reply = await client.find(({ request_id }) => request_id === "k", "the reply to the kill");
  expect(reply).toMatchObject({ type: "project_state", data: { state: "IDLE" } });
  expect(await agentsOf(app.home)).toEqual([]);
});

test("two who stop the same run are both answered", async () => {
  const { app, client, project_id } = await running("hang");
  await using _ = app;
  const other = await app.client();
  const replies = await Promise.all([
    client.ask("agent_kill", { project_id }),
    other.ask("agent_kill", { project_id }),
  ]);
  for (const reply of replies)
    expect(reply).toMatchObject({ type: "project_state", data: { state: "IDLE" } });
});

test("agent_kill acknowledges an error, and without a run there is nothing to stop", async () => {
  await using app = await testApp();
  const client = await app.client();
  const project_id = await client.create(await app.directory());
  const nothing = await client.expect("error", "agent_kill", { project_id });
  expect(nothing.data.code).toBe("PROCESS_NOT_FOUND");
  await client.expect("project_state", "execute", { project_id, data: { prompt: "noresult" } });
  expect(await client.settled(project_id)).toMatchObject({ state: "ERROR" });
  const { data } = await client.expect("project_state", "agent_kill", { project_id });
  expect(data).toMatchObject({ state: "IDLE", error: null });
});

test("a run without output is stopped and fails with EXECUTION_TIMEOUT", async () => {
  await using app = await testApp({ PA_EXECUTION_TIMEOUT: "300ms" });
  const client = await app.client();
  const project_id = await client.create(await app.directory());
  await client.expect("project_state", "execute", { project_id, data: { prompt: "hang" } });
  const state = await client.settled(project_id);
  expect(state).toMatchObject({ state: "ERROR", error: { code: "EXECUTION_TIMEOUT" } });
  const errors = client.events(project_id).filter(({ type }) => type === "error");
  expect(errors).toHaveLength(1);
  expect(await agentsOf(app.home)).toEqual([]);
});

test("a run that goes on for too long is stopped, however much it says", async () => {
  await using app = await testApp({ PA_TIMEOUTS_EXECUTION_TOTAL: "500ms" });
  const client = await app.client();
  const project_id = await client.create(await app.directory());
  await client.expect("project_state", "execute", {
    project_id,
    data: { prompt: "stream:10000:10" },
  });
  const { error } = await client.settled(project_id);
  expect(error?.code).toBe("EXECUTION_TIMEOUT");
  expect(error?.message).toContain("longer than");
});
