import { expect, test } from "bun:test";
import { testApp } from "./support/app.ts";

test("execute streams deltas, logs the lines, and ends IDLE with the session", async () => {
  await using app = await testApp();
  const client = await app.client();
  const project_id = await client.create(await app.directory());
  const reply = await client.expect("project_state", "execute", {
    project_id,
    data: { prompt: "stream:5" },
  });
  expect(reply.data).toMatchObject({ state: "EXECUTING", last_seq: 2 });
  const state = await client.settled(project_id);
  expect(state).toMatchObject({ state: "IDLE", error: null });
  expect(state.session_id).toBeString();
  const types = client.events(project_id).map(({ type }) => type);
  expect(types.slice(0, 2)).toEqual(["user_message", "project_state"]);
  expect(client.events(project_id).map(({ seq }) => seq)).toEqual(types.map((_, at) => at + 1));
});
