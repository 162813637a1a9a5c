import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { testApp, type TestApp } from "./support/app.ts";
import type { Client, Frame } from "./support/client.ts";

setDefaultTimeout(60_000);

const mebibyte = 1024 * 1024;

async function ready(app: TestApp): Promise<{ client: Client; project_id: string }> {
  const client = await app.client();
  client.patienceMs = 45_000;
  return { client, project_id: await client.create(await app.directory()) };
}

/** The texts of the assistant's lines among these frames. */
function texts(frames: readonly Frame[]): string[] {
  return frames.flatMap((frame) => {
    if (frame.type !== "agent_message" || frame.data.type !== "assistant") return [];
    const { message } = JSON.parse(JSON.stringify(frame.data));
    return [message.content[0].text];
  });
}

const notices = (client: Client, project_id: string) =>
  client.events(project_id).flatMap((frame) => (frame.type === "notice" ? [frame.data] : []));

describe("a line of the agent", () => {
  test("that is no message becomes a notice, and the run goes on", async () => {
    await using app = await testApp();
    const { client, project_id } = await ready(app);
    const state = await client.run(project_id, "say:before\njunk\nsay:after");
    expect(state).toMatchObject({ state: "IDLE", error: null });
    expect(notices(client, project_id)).toEqual([
      unreadable({ bytes: "this is not JSON".length }),
      unreadable({ bytes: '{"type":'.length }),
      unreadable({ bytes: "[1,2]".length }),
      unreadable({ bytes: "null".length }),
    ]);
    expect(texts(client.events(project_id))).toEqual(["before", "after"]);
  });

  test("passes untouched, also when it comes in two pieces cut inside a character", async () => {
    await using app = await testApp();
    const { client, project_id } = await ready(app);
    await client.run(project_id, "utf8split:Grüße 👋 世界\nutf8split:é");
    expect(texts(client.events(project_id)).slice(0, 2)).toEqual(["Grüße 👋 世界", "é"]);
  });

  test("of just under 16 MiB reaches subscribers and the history", async () => {
    await using app = await testApp();
    const { client, project_id } = await ready(app);
    const size = 16 * mebibyte - 1_000;
    const text = "x".repeat(size);
    const { state } = await client.run(project_id, `flood:1:${size}\nsay:after`);
    expect(state).toBe("IDLE");
    const events = client.events(project_id);
    expect(texts(events)).toEqual([text, "after"]);
    expect(notices(client, project_id)).toEqual([]);
    // One record is more than a page of history otherwise holds, and comes alone.
    const big = events.find((frame) => texts([frame])[0] === text);
    const after_seq = (big?.seq ?? 0) - 1;
    const page = await client.expect("messages_response", "get_messages", {
      project_id,
      data: { after_seq },
    });
    expect(page.data.has_more).toBe(true);
    expect(page.data.messages.map(({ seq }) => seq)).toEqual([after_seq + 1]);
    expect(page.data.messages).toMatchObject([{ message: big?.data }]);
  });

  test("of more than 16 MiB becomes a notice that says how long it was", async () => {
    await using app = await testApp();
    const { client, project_id } = await ready(app);
    const state = await client.run(project_id, `flood:1:${17 * mebibyte}\nsay:after`);
    expect(state).toMatchObject({ state: "IDLE", error: null });
    expect(notices(client, project_id)).toEqual([unreadable({ bytes: expect.any(Number) })]);
    expect(notices(client, project_id)[0]?.details?.["bytes"]).toBeGreaterThan(17 * mebibyte);
    expect(texts(client.events(project_id))).toEqual(["after"]);
  });
});

describe("a burst of 20,000 deltas", () => {
  test("arrives whole and in order, and nothing of it is logged", async () => {
    await using app = await testApp();
    const { client, project_id } = await ready(app);
    const state = await client.run(project_id, "stream:20000");
    const pieces = client.received.flatMap(({ type, data, seq }) => {
      if (type !== "agent_message" || seq !== undefined) return [];
      return /"text":"w(\d+) "/.exec(JSON.stringify(data))?.[1] ?? [];
    });
    expect(pieces).toEqual(Array.from({ length: 20_000 }, (_, at) => String(at)));
    expect(state.last_seq).toBe(7);
  });
});

describe("an agent that does not keep to the usual order", () => {
  test("may say init twice: that is one run", async () => {
    await using app = await testApp();
    const { client, project_id } = await ready(app);
    const state = await client.run(project_id, "inittwice\nsay:hello");
    expect(state).toMatchObject({ state: "IDLE", usage: { runs: 1 } });
    const states = client
      .events(project_id)
      .flatMap(({ type, data }) => (type === "project_state" ? [data.state] : []));
    expect(states).toEqual(["EXECUTING", "IDLE"]);
  });

  test("may go on talking after the result: that is logged, and changes nothing", async () => {
    await using app = await testApp();
    const { client, project_id } = await ready(app);
    const state = await client.run(project_id, "say:hello\nafterresult");
    const { seq } = await client.next(
      "agent_message",
      ({ data }) => data["subtype"] === "task_notification",
    );
    expect(seq).toBe(state.last_seq + 2);
    const { data } = await client.expect("project_list_response", "project_list");
    expect(data.projects).toMatchObject([{ state: "IDLE", usage: { runs: 1 }, last_seq: seq }]);
  });
});

describe("while an agent prints 100,000 lines", () => {
  test("health, other projects and other clients are answered", async () => {
    await using app = await testApp();
    const { client, project_id } = await ready(app);
    const flood = { prompt: "flood:100000" };
    await client.expect("project_state", "execute", { project_id, data: flood });
    const other = await app.client();
    const second = await other.create(await app.directory());
    let answers = 0;
    const settled = client.settled(project_id);
    const over = settled.then(() => true);
    const go = Promise.resolve(false);
    // Answers that come only when the flood is over would show up as too few of them.
    while (!(await Promise.race([over, go]))) {
      await other.expect("health_status", "health");
      await other.expect("project_list_response", "project_list");
      const response = await fetch(new URL("/health", app.url));
      expect(response.status).toBe(200);
      answers += 1;
      if (answers === 2) await other.run(second, "say:in between");
      await Bun.sleep(50);
    }
    expect(answers).toBeGreaterThan(5);
    const state = await settled;
    expect(state).toMatchObject({ state: "IDLE", error: null });
    expect(client.events(project_id).map(({ seq }) => seq)).toEqual(
      Array.from({ length: state.last_seq }, (_, at) => at + 1),
    );
    expect(state.last_seq).toBeGreaterThan(100_000);
  });
});

const unreadable = (details: { bytes: unknown }) => ({
  code: "AGENT_LINE_UNREADABLE",
  message: expect.stringContaining("Cannot pass on a line of the agent"),
  details,
});
