import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { AgentLog } from "./support/agent-log.ts";
import { testApp } from "./support/app.ts";
import type { Client, Frame } from "./support/client.ts";

setDefaultTimeout(60_000);

/** The error that a project's last run ended with, which stands just before its state. */
function failure(client: Client, project_id: string): Frame<"error">["data"] {
  const [error, state] = client.events(project_id).slice(-2);
  if (error?.type !== "error" || state?.type !== "project_state")
    throw new Error(`Expected an error and a state, got ${error?.type} and ${state?.type}`);
  expect(state.data).toMatchObject({
    state: "ERROR",
    error: { code: error.data.code, message: error.data.message },
    execution: null,
  });
  return error.data;
}

async function runAndFail(prompt: string, settings: Readonly<Record<string, string>> = {}) {
  await using app = await testApp(settings);
  const client = await app.client();
  const project_id = await client.create(await app.directory());
  await client.run(project_id, prompt);
  const error = failure(client, project_id);
  // The next prompt acknowledges the error, and nothing of it is left.
  const next = await client.run(project_id, "say:better");
  expect(next).toMatchObject({ state: settings["FAKE_CLAUDE_LOGGED_OUT"] ? "ERROR" : "IDLE" });
  return error;
}

describe("a run ends in ERROR", () => {
  test("when its result says is_error, although the subtype is success", async () => {
    expect(await runAndFail("error:API Error: 400 no such model")).toEqual({
      code: "EXECUTION_FAILED",
      message: "Cannot finish the run: the agent says: API Error: 400 no such model",
      details: {
        reason: "agent_error",
        subtype: "success",
        errors: [],
        result: "API Error: 400 no such model",
      },
    });
  });

  test("when its result is an error without a text, with what the agent lists", async () => {
    expect(await runAndFail("maxturns")).toMatchObject({
      code: "EXECUTION_FAILED",
      message: expect.stringContaining("Reached maximum number of turns (2)"),
      details: { subtype: "error_max_turns", errors: ["Reached maximum number of turns (2)"] },
    });
  });

  test("when nobody is logged in, and says what to do", async () => {
    expect(await runAndFail("autherror")).toMatchObject({
      code: "EXECUTION_FAILED",
      message:
        "Cannot run the prompt: the claude CLI is not logged in; run `claude` in a terminal on this machine and log in",
      details: { reason: "not_logged_in" },
    });
  });

  test("when nobody is logged in at all", async () => {
    const error = await runAndFail("say:hello", { FAKE_CLAUDE_LOGGED_OUT: "1" });
    expect(error.details).toMatchObject({ reason: "not_logged_in" });
  });

  for (const prompt of ["noresult", "cutline"])
    test(`when the agent exits with 0 and no result (${prompt})`, async () => {
      const error = await runAndFail(`say:before\nstderr:81\n${prompt}`);
      expect(error).toMatchObject({
        code: "EXECUTION_FAILED",
        details: { reason: "no_result", exit_code: 0, signal: null },
      });
      expect(error.message).toStartWith(
        "Cannot finish the run: the agent ended with code 0 without a result",
      );
      expect(error.details?.["stderr"]).toContain("e".repeat(79));
    });

  test("when the agent exits with an error, and quotes the last thing it said", async () => {
    const error = await runAndFail("exit1:Error: Invalid MCP configuration");
    expect(error).toMatchObject({
      message:
        'Cannot finish the run: the agent ended with code 1 without a result; it said "Error: Invalid MCP configuration"',
      details: {
        reason: "no_result",
        exit_code: 1,
        signal: null,
        stderr: "Error: Invalid MCP configuration",
      },
    });
  });

  for (const signal of ["SIGKILL", "SIGALRM"])
    test(`when the agent dies of ${signal}`, async () => {
      const error = await runAndFail(`say:before\nselfkill:${signal}`);
      expect(error).toMatchObject({
        message: `Cannot finish the run: the agent ended by ${signal} without a result`,
        details: { reason: "no_result", signal },
      });
    });

  test("with the end of what was said on stderr, and no more", async () => {
    const error = await runAndFail("stderr:100000\nnoresult");
    const stderr = String(error.details?.["stderr"]);
    expect(stderr).toMatch(/^e+(\ne{79})+$/);
    expect(stderr.length).toBeGreaterThan(4_000);
    expect(stderr.length).toBeLessThanOrEqual(8 * 1024);
  });
});

describe("100 kB on stderr", () => {
  test("do not hold a run up", async () => {
    await using app = await testApp();
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const state = await client.run(project_id, "stderr:100000\nsay:done\nstderr:1000000");
    expect(state).toMatchObject({ state: "IDLE", error: null });
  });
});

describe("a conversation that the agent does not know any more", () => {
  test("fails the run if it was a good one; the prompt after that begins anew", async () => {
    await using app = await testApp({ PA_CLAUDE_IDLE_TIMEOUT: "0s" });
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const { session_id } = await client.run(project_id, "say:one");
    rmSync(join(app.home, ".claude"), { recursive: true });
    expect(await client.run(project_id, "say:two")).toMatchObject({ session_id: null });
    const message = `No conversation found with session ID: ${session_id}`;
    expect(failure(client, project_id)).toMatchObject({
      code: "EXECUTION_FAILED",
      message: expect.stringContaining(message),
      details: { errors: [message] },
    });
    const state = await client.run(project_id, "say:three");
    expect(state.state).toBe("IDLE");
    expect(state.session_id).toBeString();
    expect(state.session_id).not.toBe(session_id);
  });

  test("is replaced, with a notice, if it never did any work", async () => {
    await using app = await testApp();
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const failed = await client.run(project_id, "noresult");
    expect(failed.session_id).toBeString();
    rmSync(join(app.home, ".claude"), { recursive: true });
    const state = await client.run(project_id, "say:after all");
    expect(state).toMatchObject({ state: "IDLE", error: null });
    expect(state.session_id).toBeString();
    expect(state.session_id).not.toBe(failed.session_id);
    const notices = client.events(project_id).filter(({ type }) => type === "notice");
    expect(notices.map(({ data }) => data)).toMatchObject([{ code: "SESSION_LOST" }]);
    // One prompt for the person, though two agents were given it.
    const agents = new AgentLog(app.home);
    expect(agents.starts().map(({ argv }) => argv[6])).toEqual([
      `--session-id=${failed.session_id}`,
      `--resume=${failed.session_id}`,
      `--session-id=${state.session_id}`,
    ]);
    expect(client.events(project_id).filter(({ type }) => type === "user_message")).toHaveLength(2);
  });
});

describe("a run that takes too long", () => {
  test("is stopped when the agent prints nothing for a while", async () => {
    const error = await runAndFail("hang", { PA_EXECUTION_TIMEOUT: "300ms" });
    expect(error).toMatchObject({
      code: "EXECUTION_TIMEOUT",
      message: expect.stringContaining("printed nothing for"),
    });
  });

  test("is not stopped while the agent prints something now and then", async () => {
    await using app = await testApp({ PA_EXECUTION_TIMEOUT: "3s" });
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    // In all longer than the limit, which is far longer than any of the pauses.
    const state = await client.run(project_id, "stream:40:100");
    expect(state).toMatchObject({ state: "IDLE", error: null });
    expect(state.usage.duration_ms).toBeGreaterThan(3_000);
  });

  test("is stopped in all after the total, however much it prints", async () => {
    const error = await runAndFail("flood:100000:100:5", {
      PA_EXECUTION_TIMEOUT: "1m",
      PA_TIMEOUTS_EXECUTION_TOTAL: "500ms",
    });
    expect(error).toMatchObject({
      code: "EXECUTION_TIMEOUT",
      message: expect.stringContaining("took longer than"),
    });
  });
});
