/** Whatever ends a run in the middle, nothing that it started goes on. */
import { expect, test } from "bun:test";
import { execute, Lab, run } from "./lab.ts";
import { errors } from "./transcript.ts";

/** One process that the CLI ends with its tool, and one that has left its family and session. */
const sleeping = {
  prompt: "bash:(setsid sleep 301 &); sleep 300",
  options: { allowed_tools: ["Bash"] },
};
type Agents = Awaited<ReturnType<Lab["agents"]>>;
const bothSleep = (agents: Agents) =>
  ["sleep 300", "sleep 301"].every((sleep) => agents.some(({ command }) => command === sleep));

test("a kill while a tool runs leaves nothing alive when it replies", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const { id } = await lab.project(client);
  await execute(client, id, sleeping);
  await lab.until(bothSleep);
  const { data } = await client.expect("project_state", "agent_kill", { project_id: id });
  expect(await lab.agents()).toEqual([]);
  expect(data).toMatchObject({ state: "IDLE", error: null });
  const state = await run(client, id, { prompt: "say:Still here" });
  expect(state).toMatchObject({ state: "IDLE", session_id: data.session_id });
});

test("after kill -9 of the server the run has failed, its processes are gone, and it goes on", async () => {
  await using lab = await Lab.start();
  const before = await lab.client();
  const { id } = await lab.project(before);
  const first = await run(before, id, { prompt: "say:The word is heron" });
  await execute(before, id, sleeping);
  await lab.until(bothSleep);
  await lab.server.crash();
  expect(bothSleep(await lab.agents())).toBeTrue();

  await lab.restart();
  const client = await lab.client();
  const { data } = await client.expect("project_joined", "project_join", {
    project_id: id,
    data: { after_seq: 0, epoch: first.epoch },
  });
  expect(data).toMatchObject({ state: "ERROR", resume: "ok", session_id: first.session_id });
  expect(data.error?.message).toContain("the server went down");
  await client.next("caught_up");
  expect(errors(client.events(id))).toMatchObject([{ details: { reason: "server_crash" } }]);
  await lab.until((agents) => agents.length === 0);

  const state = await run(client, id, { prompt: "say:Indeed" });
  expect(state).toMatchObject({ state: "IDLE", error: null, session_id: first.session_id });
  expect(lab.conversation).toContain("The word is heron");
});
