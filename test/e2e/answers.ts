/** What the agent says reaches the client: all of it, once, and as it is said. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { Lab, run } from "./lab.ts";
import { blocks, lines, thoughts, tokens } from "./transcript.ts";

test("a plain answer is logged in order, and the project ends IDLE with its session", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const { id } = await lab.project(client);
  const state = await run(client, id, { prompt: "say:Hello there" });
  expect(state).toMatchObject({ state: "IDLE", error: null, usage: { runs: 1 } });
  expect(state.resume_command).toEndWith(`claude --resume ${state.session_id}`);
  expect(blocks(client.received)).toEqual([{ type: "text", text: "Hello there" }]);
  const events = client.events(id);
  expect(events.map(({ seq }) => seq)).toEqual(events.map((_, at) => at + 1));
  expect(events.slice(0, 2).map(({ type }) => type)).toEqual(["user_message", "project_state"]);
  expect(events.at(-1)?.type).toBe("project_state");
  expect(lines(events, "result")).toHaveLength(1);
});

test("each of 200 tokens arrives as a delta, and together they are the answer", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const { id } = await lab.project(client);
  await run(client, id, { prompt: "stream:200" });
  const said = Array.from({ length: 200 }, (_, at) => `w${at} `);
  expect(tokens(client.received)).toEqual(said);
  expect(blocks(client.received)).toEqual([{ type: "text", text: said.join("") }]);
  // A delta has no number, and so is not part of the history.
  expect(tokens(client.events(id))).toEqual([]);
  const { data } = await client.expect("messages_response", "get_messages", { project_id: id });
  expect(JSON.stringify(data.messages)).not.toContain("stream_event");
});

test("a tool that acceptEdits allows does its work", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const { id, path } = await lab.project(client);
  const file = join(path, "made.txt");
  const options = { permission_mode: "acceptEdits" };
  const state = await run(client, id, { prompt: `write:${file}`, options });
  expect(state.state).toBe("IDLE");
  expect(await Bun.file(file).text()).toBe("written by the fake model\n");
  expect(blocks(client.received)).toContainEqual(expect.objectContaining({ name: "Write" }));
});

test("thinking arrives as deltas and as a block of its own", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const { id } = await lab.project(client);
  await run(client, id, { prompt: "thinking:two and two ;; say:four" });
  expect(thoughts(client.received)).toEqual(["two and two"]);
  expect(blocks(client.received)).toMatchObject([
    { type: "thinking", thinking: "two and two" },
    { type: "text", text: "four" },
  ]);
});

test("the work of a sub-agent is told apart from that of the agent", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const { id } = await lab.project(client);
  const state = await run(client, id, { prompt: "subagent:bash:echo from below" });
  expect(state.state).toBe("IDLE");
  const call = blocks(client.received)[0];
  expect(call).toMatchObject({ type: "tool_use", name: "Agent" });
  const below = lines(client.received, "assistant").filter(
    (line) => line.parent_tool_use_id === call?.id,
  );
  expect(below).toMatchObject([{ message: { content: [{ type: "tool_use", name: "Bash" }] } }]);
  expect(blocks(client.received).at(-1)?.text).toContain("from below");
});

test("an answer of 2 MB arrives whole, live and from the history", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const { id } = await lab.project(client);
  await run(client, id, { prompt: "big:2000000" });
  const answer = "x".repeat(2_000_000);
  expect(tokens(client.received).join("") === answer).toBeTrue();
  expect(blocks(client.received).map(({ text }) => text === answer)).toEqual([true]);
  const at = client.events(id).findIndex((frame) => lines([frame], "assistant").length > 0);
  const { data } = await client.expect("messages_response", "get_messages", {
    project_id: id,
    data: { after_seq: at, limit: 1 },
  });
  expect(data.messages.map(({ message }) => JSON.stringify(message).includes(answer))).toEqual([
    true,
  ]);
});
