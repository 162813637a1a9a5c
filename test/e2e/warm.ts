/** The second prompt is quick, a mode changes in the middle, and prompts wait their turn. */
import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { execute, Lab, run } from "./lab.ts";

const leaders = ({ command }: { command: string }) =>
  command.includes("--input-format=stream-json");

test("a second prompt goes to the same process, and a longer pause ends it", async () => {
  await using lab = await Lab.start({ PA_CLAUDE_IDLE_TIMEOUT: "3s" });
  const client = await lab.client();
  const { id } = await lab.project(client);
  const first = await run(client, id, { prompt: "say:one" });
  const before = (await lab.agents()).find(leaders);
  const second = await run(client, id, { prompt: "say:two" });
  const after = (await lab.agents()).find(leaders);
  expect(before?.pid).toBeNumber();
  expect(after?.pid).toBe(before?.pid ?? 0);
  expect(second).toMatchObject({ session_id: first.session_id, usage: { runs: 2 } });
  await lab.until((agents) => agents.length === 0);
});

test("a change of mode in the middle of a run holds for the rest of it", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const { id, path } = await lab.project(client);
  const [asked, free] = [join(path, "asked.txt"), join(path, "free.txt")];
  await execute(client, id, { prompt: `write:${asked}\nwrite:${free}` });
  const { data } = await client.next("permission_request");
  const changed = await client.expect("project_state", "agent_set", {
    project_id: id,
    data: { permission_mode: "acceptEdits" },
  });
  expect(changed.data).toMatchObject({ state: "EXECUTING", permission_mode: "acceptEdits" });
  await client.expect("permission_resolved", "permission_response", {
    project_id: id,
    data: { permission_id: data.permission_id, decision: "allow" },
  });
  await client.settled(id);
  expect(existsSync(asked) && existsSync(free)).toBeTrue();
  expect(client.received.filter(({ type }) => type === "permission_request")).toHaveLength(1);
});

test("a queued prompt runs after a restart", async () => {
  await using lab = await Lab.start({ PA_TIMEOUTS_SHUTDOWN: "20s" });
  const before = await lab.client();
  const { id } = await lab.project(before);
  await execute(before, id, { prompt: "slow:3" });
  const queued = await before.expect("execution_queued", "execute", {
    project_id: id,
    data: { prompt: "say:After the restart", queue: true },
  });
  expect(queued.data.position).toBe(1);
  expect(await lab.server.stop()).toBe(0);

  await lab.restart();
  const client = await lab.client();
  await client.expect("project_joined", "project_join", {
    project_id: id,
    data: { after_seq: 0 },
  });
  const started = await client.next(
    "user_message",
    (frame) => frame.data.execution_id === queued.data.execution_id,
  );
  expect(started.data.prompt).toBe("say:After the restart");
  expect(await client.settled(id)).toMatchObject({ state: "IDLE", queued: 0, error: null });
  expect(lab.conversation).toContain("say:After the restart");
});
