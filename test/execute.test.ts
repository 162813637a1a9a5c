import { describe, expect, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { AgentLog } from "./support/agent-log.ts";
import { testApp } from "./support/app.ts";
import type { Client } from "./support/client.ts";

/** What kind each logged event of a project is; of the agent's lines, the type of the line. */
function kinds(client: Client, project_id: string): string[] {
  return client
    .events(project_id)
    .map((frame) => (frame.type === "agent_message" ? frame.data.type : frame.type));
}

describe("the order of a run", () => {
  test("is the prompt, EXECUTING, the agent's lines with the result last, and IDLE", async () => {
    await using app = await testApp();
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const reply = await client.expect("project_state", "execute", {
      project_id,
      data: { prompt: "stream:5" },
    });
    expect(reply.data).toMatchObject({ state: "EXECUTING", last_seq: 2, error: null });
    const state = await client.settled(project_id);
    expect(state).toMatchObject({ state: "IDLE", error: null, execution: null });
    expect(kinds(client, project_id)).toEqual([
      "user_message",
      "project_state",
      "system",
      "system",
      "assistant",
      "result",
      "project_state",
    ]);
    const events = client.events(project_id);
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, at) => at + 1));
    expect(events[0]?.data).toMatchObject({
      execution_id: reply.data.execution?.id,
      prompt: "stream:5",
      images: 0,
      device: null,
    });
    expect(state.last_seq).toBe(7);
  });

  test("shows the deltas, without a number, between the lines that they belong to", async () => {
    await using app = await testApp();
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    await client.run(project_id, "stream:5");
    const said = client.received.filter(({ type }) => type === "agent_message");
    const deltas = said.filter(({ data }) => "type" in data && data.type === "stream_event");
    expect(deltas.map(({ seq }) => seq)).toEqual(deltas.map(() => undefined));
    const texts = deltas.map(({ data }) => /"text":"(w\d+ )"/.exec(JSON.stringify(data))?.[1]);
    expect(texts.filter(Boolean)).toEqual(["w0 ", "w1 ", "w2 ", "w3 ", "w4 "]);
    const first = said.findIndex(({ data }) => "type" in data && data.type === "stream_event");
    expect(first).toBeLessThan(
      said.findIndex(({ data }) => "type" in data && data.type === "assistant"),
    );
  });

  test("has the error just before the state when the run fails", async () => {
    await using app = await testApp();
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    await client.run(project_id, "error:the model is gone");
    expect(kinds(client, project_id).slice(-3)).toEqual(["result", "error", "project_state"]);
  });

  test("subscribes the caller before the prompt is published, and no one else", async () => {
    await using app = await testApp();
    const [caller, stranger] = await Promise.all([app.client(), app.client()]);
    const project_id = await caller.create(await app.directory());
    await caller.run(project_id, "say:hello");
    await stranger.next("project_updated", ({ data }) => data.usage.runs === 1);
    expect(kinds(caller, project_id)[0]).toBe("user_message");
    expect(stranger.events(project_id)).toEqual([]);
  });

  test("is not disturbed by a second prompt, which is PROCESS_ACTIVE", async () => {
    await using app = await testApp();
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const data = { prompt: "bash:cat ../go" };
    // The command waits for a writer, so that the run cannot end before it is told to.
    Bun.spawnSync(["mkfifo", join(app.home, "work", "go")]);
    await client.expect("project_state", "execute", { project_id, data });
    const refused = await client.ask("execute", { project_id, data: { prompt: "again" } });
    expect(refused).toMatchObject({ type: "error", data: { code: "PROCESS_ACTIVE" } });
    await writeFile(join(app.home, "work", "go"), "gone");
    expect(await client.settled(project_id)).toMatchObject({ state: "IDLE" });
    expect(kinds(client, project_id).filter((kind) => kind === "user_message")).toHaveLength(1);
    expect(new AgentLog(app.home).prompts()).toHaveLength(1);
  });
});

describe("the session", () => {
  test("is begun with an id of ours, kept, and resumed by the next agent", async () => {
    await using app = await testApp({ PA_CLAUDE_IDLE_TIMEOUT: "0s" });
    const agents = new AgentLog(app.home);
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const { session_id, resume_command } = await client.run(project_id, "say:one");
    expect(agents.last().argv).toContain(`--session-id=${session_id}`);
    expect(resume_command).toEndWith(` && claude --resume ${session_id}`);
    const again = await client.run(project_id, "say:two");
    expect(again.session_id).toBe(session_id);
    expect(agents.starts()).toHaveLength(2);
    expect(agents.last().argv).toContain(`--resume=${session_id}`);
    expect(agents.last().argv.join(" ")).not.toContain("--session-id");
  });

  test("is resumed after a run that failed, too", async () => {
    await using app = await testApp();
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const failed = await client.run(project_id, "selfkill:SIGKILL");
    expect(failed.state).toBe("ERROR");
    const state = await client.run(project_id, "say:still here");
    expect(state).toMatchObject({ state: "IDLE", session_id: failed.session_id, error: null });
    expect(new AgentLog(app.home).last().argv).toContain(`--resume=${failed.session_id}`);
  });

  test("is left by agent_new_session, which says which one it was", async () => {
    await using app = await testApp();
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const { session_id } = await client.run(project_id, "say:one");
    const reset = await client.expect("session_reset", "agent_new_session", { project_id });
    expect(reset.data.previous_session_id).toBe(session_id);
    await client.next("session_reset", ({ seq }) => seq !== undefined);
    expect(await client.settled(project_id)).toMatchObject({ session_id: null });
    const state = await client.run(project_id, "say:two");
    expect(state.session_id).toBeString();
    expect(state.session_id).not.toBe(session_id);
    expect(new AgentLog(app.home).last().argv).toContain(`--session-id=${state.session_id}`);
  });

  test("cannot be left while a run is in progress", async () => {
    await using app = await testApp();
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    await client.expect("project_state", "execute", { project_id, data: { prompt: "hang" } });
    const refused = await client.ask("agent_new_session", { project_id });
    expect(refused).toMatchObject({ type: "error", data: { code: "PROCESS_ACTIVE" } });
    await client.expect("project_state", "agent_kill", { project_id });
  });

  test("is the one that the agent itself changes to", async () => {
    await using app = await testApp();
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const { session_id } = await client.run(project_id, "say:one");
    const cleared = await client.run(project_id, "/clear");
    expect(cleared.state).toBe("IDLE");
    expect(cleared.session_id).not.toBe(session_id);
    const state = await client.run(project_id, "say:two", { options: { model: "sonnet" } });
    expect(state.session_id).toBe(cleared.session_id);
    expect(new AgentLog(app.home).last().argv).toContain(`--resume=${cleared.session_id}`);
  });

  test("adds up what its runs cost", async () => {
    await using app = await testApp();
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const first = await client.run(project_id, "say:one");
    expect(first.usage).toMatchObject({ runs: 1, input_tokens: 10 });
    expect(first.usage.cost_usd).toBeGreaterThan(0);
    const second = await client.run(project_id, "say:one");
    const third = await client.run(project_id, "error:nothing was said");
    const { cost_usd, input_tokens, output_tokens } = first.usage;
    expect(second.usage).toMatchObject({
      runs: 2,
      input_tokens: 2 * input_tokens,
      output_tokens: 2 * output_tokens,
    });
    // The agent counts its cost since its start, whether it is the same process or not.
    expect(second.usage.cost_usd).toBeCloseTo(2 * cost_usd, 10);
    expect(third.usage).toMatchObject({ runs: 3, cost_usd: second.usage.cost_usd });
  });
});
