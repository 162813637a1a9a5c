import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import type { ServerData } from "../src/contract/messages.ts";
import { AgentLog } from "./support/agent-log.ts";
import { scratch, type TestApp, testApp } from "./support/app.ts";
import type { Client, Frame } from "./support/client.ts";

setDefaultTimeout(60_000);

let stack: AsyncDisposableStack;
let home: string;
let app: TestApp;
let client: Client;
let project_id: string;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  home = await scratch(stack);
  app = stack.use(await testApp({}, { home }));
  client = await app.client();
  project_id = await client.create(await app.directory());
});

afterEach(() => stack.disposeAsync());

const run = (prompt: string, rest: object = {}) => client.run(project_id, prompt, rest);

const notices = (): Frame<"notice">[] =>
  client.events(project_id).flatMap((frame) => (frame.type === "notice" ? [frame] : []));

const codes = () => notices().map(({ data }) => data.code);

/** The agent's own lines of one kind. */
const lines = (type: string, subtype?: string) =>
  client
    .events(project_id)
    .flatMap((frame) =>
      frame.type === "agent_message" &&
      frame.data.type === type &&
      (subtype === undefined || frame.data["subtype"] === subtype)
        ? [frame]
        : [],
    );

/** What the agents said, one by one: the cost of a process so far, the tokens of a turn. */
function stated() {
  return lines("result").map(({ data }) => {
    const { input_tokens, output_tokens } = Object(data["usage"]);
    return {
      cost: Number(data["total_cost_usd"]),
      input_tokens: Number(input_tokens),
      output_tokens: Number(output_tokens),
    };
  });
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);

/** A prompt that makes the agent tell of its rate limit. */
const rateLimit = (status: string) =>
  `junk:${JSON.stringify({ type: "rate_limit_event", rate_limit_info: { status } })}`;

describe("a notice", () => {
  test("of API retries comes once for all in a row, with how many there may be", async () => {
    expect(await run("retry:4\nsay:at last")).toMatchObject({ state: "IDLE", error: null });
    expect(lines("system", "api_retry")).toHaveLength(4);
    expect(notices().map(({ data }) => data)).toEqual([
      {
        code: "API_RETRY",
        message: expect.stringMatching(/overloaded.*10 times/),
        details: {
          attempt: 1,
          max_retries: 10,
          retry_delay_ms: 500,
          error_status: 529,
          error: "overloaded",
        },
      },
    ]);
  });

  test("of API retries comes again when the API had answered in between", async () => {
    await run("retry:2\nsay:a\nretry:3\nsay:b");
    expect(codes()).toEqual(["API_RETRY", "API_RETRY"]);
    await run("retrystorm:2");
    await run("retry:2");
    expect(codes()).toEqual(Array.from({ length: 4 }, () => "API_RETRY"));
  });

  test("of a fallback names both models", async () => {
    await run("fallback\nsay:slower");
    expect(codes()).toEqual(["API_RETRY", "MODEL_FALLBACK"]);
    const [, fallback] = notices();
    expect(fallback?.data.message).toMatch(/claude-sonnet-5 instead of claude-opus-4-8/);
    expect(fallback?.data.details).toMatchObject({
      trigger: "overloaded",
      fallback_model: "claude-sonnet-5",
    });
  });

  test("of a rate limit says when it resets", async () => {
    await run("ratelimit");
    const [notice] = notices();
    const resets_at = new Date(Number(Object(notice?.data.details)["resetsAt"]) * 1000);
    expect(resets_at.getTime()).toBeGreaterThan(Date.now());
    expect(notice?.data).toMatchObject({
      code: "RATE_LIMIT",
      message: expect.stringContaining(`near; it resets at ${resets_at.toISOString()}`),
      details: { resets_at: resets_at.toISOString(), status: "allowed_warning" },
    });
  });

  test("of a rate limit tells one that is reached from one that is far away", async () => {
    await run([rateLimit("allowed"), rateLimit("rejected")].join("\n"));
    const limits = notices().filter(({ data }) => data.code === "RATE_LIMIT");
    expect(limits.map(({ data }) => data)).toEqual([
      {
        code: "RATE_LIMIT",
        message: "The account's usage limit is reached",
        details: { status: "rejected", resets_at: null },
      },
    ]);
  });

  test("of a compaction comes once", async () => {
    await run("compact\nsay:shorter");
    expect(codes()).toEqual(["COMPACTING"]);
  });

  test("says which tool the permission mode denied without asking", async () => {
    await run('tool:Bash:{"command":"make"}', { options: { permission_mode: "dontAsk" } });
    expect(notices().map(({ data }) => data)).toMatchObject([
      { code: "PERMISSION_DENIED", message: expect.stringContaining("Bash") },
    ]);
    expect(client.received.map(({ type }) => type)).not.toContain("permission_request");
  });

  test("is logged right behind the line that it explains", async () => {
    await run("denied\ncompact\nfallback\nratelimit");
    expect(codes()).toEqual([
      "PERMISSION_DENIED",
      "COMPACTING",
      "API_RETRY",
      "MODEL_FALLBACK",
      "RATE_LIMIT",
    ]);
    const { data } = await client.expect("messages_response", "get_messages", { project_id });
    for (const { seq = 0, data: notice } of notices()) {
      const [line, logged] = data.messages.slice(seq - 2, seq);
      expect(line).toMatchObject({ seq: seq - 1, direction: "claude" });
      expect(logged).toMatchObject({
        seq,
        direction: "server",
        message: { type: "notice", data: notice },
      });
    }
  });
});

describe("usage", () => {
  type Usage = ServerData<"project_state">["usage"];

  /** `last` are the results after which a process said no more. */
  function expectUsage(usage: Usage, last: readonly number[]): void {
    const said = stated();
    const cost = sum(last.map((at) => said[at]?.cost ?? Number.NaN));
    expect(usage.cost_usd).toBeCloseTo(cost, 10);
    expect(usage.input_tokens).toBe(sum(said.map(({ input_tokens }) => input_tokens)));
    expect(usage.output_tokens).toBe(sum(said.map(({ output_tokens }) => output_tokens)));
  }

  test("adds up over warm and replaced agents, although each counts since its own start", async () => {
    const log = new AgentLog(home);
    const one = await run("say:one");
    expectUsage(one.usage, [0]);
    const two = await run("say:two\nsay:three");
    expectUsage(two.usage, [1]);
    expect(log.starts()).toHaveLength(1);
    const three = await run("say:four", { options: { model: "opus" } });
    expectUsage(three.usage, [1, 2]);
    expect(log.starts()).toHaveLength(2);
    const four = await run("error:no", { options: { model: "opus" } });
    expectUsage(four.usage, [1, 3]);
    expect(four.usage.runs).toBe(4);
    const durations = [one, two, three, four].map(({ usage }) => usage.duration_ms);
    expect(durations).toEqual(durations.toSorted((a, b) => a - b));
    expect(durations[0]).toBeGreaterThan(0);
  });

  test("counts a run that was killed, with what it had cost by then", async () => {
    await run("say:one");
    await client.expect("project_state", "execute", {
      project_id,
      data: { prompt: "say:two\nhang" },
    });
    await client.find(({ data }) => JSON.stringify(data).includes('"text":"two"'), "the text");
    const { data } = await client.expect("project_state", "agent_kill", { project_id });
    expect(stated()).toHaveLength(2);
    expectUsage(data.usage, [1]);
    expect(data.usage.runs).toBe(2);
  });

  test("counts what the agent does by itself", async () => {
    const first = await run("background:1:say:done");
    const begun = await client.next("project_state", ({ data }) => data.state === "EXECUTING");
    const last = await client.settled(project_id, Math.max(begun.seq ?? 0, first.last_seq));
    expect(stated()).toHaveLength(2);
    expectUsage(last.usage, [1]);
    expect(last.usage.runs).toBe(2);
  });

  test("is kept over a restart, and is each project's own", async () => {
    const { usage } = await run("say:one");
    const other = await client.create(await app.directory());
    expect((await client.run(other, "say:one")).usage.cost_usd).toBeCloseTo(usage.cost_usd, 10);
    await app[Symbol.asyncDispose]();
    app = stack.use(await testApp({}, { home }));
    client = await app.client();
    const { data } = await client.expect("project_list_response", "project_list");
    expect(data.projects.find(({ id }) => id === project_id)?.usage).toEqual(usage);
    const again = await run("say:one");
    expect(again.usage.cost_usd).toBeCloseTo(2 * usage.cost_usd, 10);
    expect(again.usage.runs).toBe(2);
  });

  test("is counted in /metrics", async () => {
    const [, failed] = [await run("say:one"), await run("error:two")];
    await client.expect("project_state", "execute", { project_id, data: { prompt: "hang" } });
    const { data } = await client.expect("project_state", "agent_kill", { project_id });
    const text = await app.metrics.text();
    const metric = (name: string) =>
      Number(new RegExp(`^pocket_agent_${name} (\\S+)$`, "m").exec(text)?.[1]);
    expect(failed.usage.cost_usd).toBeGreaterThan(0);
    expect(metric("execution_cost_usd_total")).toBeCloseTo(data.usage.cost_usd, 10);
    expect(metric('execution_tokens_total\\{direction="input"\\}')).toBe(data.usage.input_tokens);
    expect(metric('execution_tokens_total\\{direction="output"\\}')).toBe(data.usage.output_tokens);
    for (const outcome of ["success", "failed", "killed"]) {
      expect(metric(`executions_total\\{outcome="${outcome}"\\}`)).toBe(1);
      expect(metric(`execution_duration_seconds_count\\{outcome="${outcome}"\\}`)).toBe(1);
    }
    expect(metric("executions_active")).toBe(0);
    expect(metric('errors_total\\{code="EXECUTION_FAILED"\\}')).toBe(1);
  });
});
