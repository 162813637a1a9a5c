/** A conversation outlives the run, the connection and the server. */
import { expect, test } from "bun:test";
import type { Client, Frame } from "../support/client.ts";
import { execute, Lab, run } from "./lab.ts";
import { blocks, tokens } from "./transcript.ts";

test("the second prompt continues the conversation of the first", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const { id } = await lab.project(client);
  const first = await run(client, id, { prompt: "say:The word is heron" });
  expect(first.session_id).toBeString();
  const second = await run(client, id, { prompt: "say:Indeed" });
  expect(second).toMatchObject({ state: "IDLE", session_id: first.session_id });
  expect(lab.conversation).toContain("The word is heron");
  await client.expect("session_reset", "agent_new_session", { project_id: id });
  const third = await run(client, id, { prompt: "say:Afresh" });
  expect(third.session_id).not.toBe(first.session_id);
  expect(lab.conversation).toEqual(["say:Afresh"]);
});

test("a restarted server knows the project, and continues its conversation", async () => {
  await using lab = await Lab.start();
  const before = await lab.client();
  const { id } = await lab.project(before);
  const first = await run(before, id, { prompt: "say:The word is heron" });
  expect(await lab.server.stop()).toBe(0);
  expect((await before.closed).code).toBe(1001);
  expect(await lab.agents()).toEqual([]);

  await lab.restart();
  const client = await lab.client();
  const { data } = await client.expect("project_list_response", "project_list");
  const { session_id, epoch, last_seq } = first;
  expect(data.projects).toMatchObject([{ id, state: "IDLE", session_id, epoch, last_seq }]);
  const second = await run(client, id, { prompt: "say:Indeed" });
  expect(second).toMatchObject({ state: "IDLE", session_id: first.session_id });
  expect(lab.conversation).toContain("The word is heron");
});

test("a client that drops in the middle and returns has missed nothing", async () => {
  await using lab = await Lab.start();
  const [steady, dropping] = [await lab.client(), await lab.client()];
  const { id } = await lab.project(steady);
  await join(steady, id);
  const { epoch } = await join(dropping, id);
  dropping.socket.addEventListener("message", () => {
    if (blocks(dropping.received).length > 0) dropping.socket.terminate();
  });
  await execute(steady, id, { prompt: "loop:3 ;; slow:60" });
  await dropping.closed;
  const seen = dropping.events(id);
  // The tools are done and the answer is being said when it comes back.
  await steady.find(isToken, "the first token");
  expect(steady.events(id).length).toBeGreaterThan(seen.length);

  const returned = await lab.client();
  const joined = await join(returned, id, { after_seq: seen.at(-1)?.seq, epoch });
  expect(joined).toMatchObject({ state: "EXECUTING", resume: "ok", from: seen.length });
  await returned.find(isToken, "a token after the return");
  await steady.expect("project_state", "agent_kill", { project_id: id });
  await Promise.all([returned.settled(id), steady.settled(id)]);
  expect([...seen, ...returned.events(id)]).toEqual(steady.events(id));
});

const isToken = (frame: Frame) => tokens([frame]).length > 0;

async function join(client: Client, project_id: string, data: object = {}) {
  return (await client.expect("project_joined", "project_join", { project_id, data })).data;
}
