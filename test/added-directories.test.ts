/** What a run works in besides its project's directory, of which the CLI takes skills and agents. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { AgentLog } from "./support/agent-log.ts";
import { scratch, type TestApp, testApp } from "./support/app.ts";
import type { Client } from "./support/client.ts";

setDefaultTimeout(60_000);

let stack: AsyncDisposableStack;
let app: TestApp;
let log: AgentLog;
let client: Client;
/** Two directories that are no projects yet. */
let path: string;
let aside: string;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  app = stack.use(await testApp({}, { home: await scratch(stack) }));
  log = new AgentLog(app.home);
  client = await app.client();
  path = await app.directory("project");
  aside = await app.directory("aside");
});

afterEach(() => stack.disposeAsync());

const trust = (project_id: string, trusted: boolean) =>
  client.expect("project_state", "project_trust", { project_id, data: { trusted } });

/** Makes the CLI's own record say that the trust dialog was accepted for a directory. */
function accept(directory: string): void {
  mkdirSync(join(app.home, ".claude"), { recursive: true });
  const projects = { [directory]: { hasTrustDialogAccepted: true } };
  writeFileSync(join(app.home, ".claude", ".claude.json"), JSON.stringify({ projects }));
}

/** What the agent that was started last was given. */
const given = () =>
  log
    .last()
    .argv.filter((word) => word.startsWith("--add-dir="))
    .map((word) => word.slice("--add-dir=".length));

async function refusal(project_id: string, directory: string) {
  const data = { prompt: "say:no", options: { add_dirs: [directory] } };
  return (await client.expect("error", "execute", { project_id, data })).data;
}

async function runs(project_id: string, directory: string): Promise<void> {
  const before = log.starts().length;
  await client.run(project_id, "say:yes", { options: { add_dirs: [directory] } });
  expect(log.starts()).toHaveLength(before + 1);
  expect(given()).toEqual([directory]);
}

/** Lets the agent have directories for the rest of the session, as it suggests. */
async function remember(project_id: string, directories: readonly string[]): Promise<void> {
  const asking = {
    subtype: "can_use_tool",
    tool_name: "Bash",
    input: { command: "make" },
    permission_suggestions: [{ type: "addDirectories", directories, destination: "session" }],
  };
  const request = { type: "control_request", request_id: "r", request: asking };
  const data = { prompt: `junk:${JSON.stringify(request)}\nhang` };
  await client.expect("project_state", "execute", { project_id, data });
  const { permission_id } = (await client.next("permission_request")).data;
  await client.expect("permission_resolved", "permission_response", {
    project_id,
    data: { permission_id, decision: "allow", remember: true },
  });
  await client.expect("project_state", "agent_kill", { project_id });
}

describe("a trusted project", () => {
  test("adds no directory that nobody trusts", async () => {
    const id = await client.create(path, { trusted: true });
    expect(await refusal(id, aside)).toMatchObject({
      code: "INVALID_MESSAGE",
      message: `Cannot add "${aside}" to a trusted project: it is not trusted itself, and its skills and agents could run commands; make it a project and trust it, or run untrusted`,
      details: { path: "options.add_dirs.0" },
    });
    const other = await client.create(aside);
    expect(await refusal(id, aside)).toMatchObject({ code: "INVALID_MESSAGE" });
    expect(log.starts()).toEqual([]);
    await trust(other, true);
    await runs(id, aside);
    await runs(id, await app.directory("aside/below"));
    await trust(other, false);
    expect(await refusal(id, aside)).toMatchObject({ code: "INVALID_MESSAGE" });
  });

  test("adds what lies in it, and what the CLI's owner trusts", async () => {
    const id = await client.create(path, { trusted: true });
    await runs(id, await app.directory("project/below"));
    accept(aside);
    await runs(id, aside);
    // A person's word here goes before the CLI's record.
    await client.create(aside, { trusted: false });
    expect(await refusal(id, aside)).toMatchObject({ code: "INVALID_MESSAGE" });
  });

  test("adds none that was made anew since it was trusted", async () => {
    const id = await client.create(path, { trusted: true });
    await client.create(aside, { trusted: true });
    renameSync(aside, `${aside}-old`);
    mkdirSync(aside);
    expect(await refusal(id, aside)).toMatchObject({ code: "INVALID_MESSAGE" });
  });

  test("cancels a prompt whose directory is not trusted any more when its turn comes", async () => {
    const id = await client.create(path, { trusted: true });
    const other = await client.create(aside, { trusted: true });
    await client.expect("project_state", "execute", {
      project_id: id,
      data: { prompt: "sleep:60000" },
    });
    const data = { prompt: "say:no", options: { add_dirs: [aside] }, queue: true };
    const reply = await client.expect("execution_queued", "execute", { project_id: id, data });
    await trust(other, false);
    await client.expect("project_state", "agent_kill", { project_id: id });
    await client.run(id, "say:next");
    const { data: cancelled } = await client.next("execution_cancelled");
    expect(cancelled).toMatchObject({
      execution_id: reply.data.execution_id,
      reason: expect.stringContaining("it is not trusted itself"),
    });
  });
});

test("an untrusted project adds any directory, and runs without what it brings along", async () => {
  const id = await client.create(path);
  await runs(id, aside);
  expect(log.last().argv).toContain("--setting-sources=user");
});

test("a run that is trusted only after it was accepted is checked before its agent starts", async () => {
  const id = await client.create(path);
  await client.run(id, "say:one");
  const { last_seq } = (
    await Promise.all([
      // Its agent can be started when the one of the run before is gone.
      client.expect("project_state", "execute", {
        project_id: id,
        data: { prompt: "say:two", options: { add_dirs: [aside] } },
      }),
      trust(id, true),
    ])
  )[0].data;
  expect(await client.settled(id, last_seq)).toMatchObject({
    state: "ERROR",
    error: { code: "INVALID_PATH", message: expect.stringContaining("it is not trusted itself") },
  });
  expect(log.starts()).toHaveLength(1);
});

describe("what is remembered", () => {
  test("goes to the next agent of a trusted project only if it may be added", async () => {
    const id = await client.create(path, { trusted: true });
    const below = await app.directory("project/below");
    const other = await app.directory("other");
    const otherId = await client.create(other, { trusted: true });
    await remember(id, [aside, below, other]);
    await client.run(id, "say:again");
    expect(given()).toEqual([below, other]);
    // The agent is warm, and has it still.
    await trust(otherId, false);
    await client.run(id, "say:and again");
    expect(given()).toEqual([below]);
    expect(log.starts()).toHaveLength(3);
    await client.run(id, "say:once more");
    expect(log.starts()).toHaveLength(3);
  });

  test("is looked up each time, and left out once it leads to secrets", async () => {
    const id = await client.create(path);
    const link = join(app.home, "work", "link");
    symlinkSync(aside, link);
    await remember(id, [link]);
    await client.run(id, "say:again");
    expect(given()).toEqual([aside]);
    rmSync(link);
    mkdirSync(join(app.home, ".ssh"));
    symlinkSync(join(app.home, ".ssh"), link);
    await client.run(id, "say:and again");
    expect(given()).toEqual([]);
  });
});
