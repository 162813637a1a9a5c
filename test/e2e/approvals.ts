/** The agent asks, and somebody answers: allow, deny, edit, questions, plans. */
import { expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { PermissionRequest } from "../../src/contract/messages.ts";
import type { Client } from "../support/client.ts";
import { execute, Lab, type Project, run } from "./lab.ts";

const ended = (client: Client, { id }: Project) =>
  client.next(
    "project_state",
    ({ project_id, seq, data }) =>
      project_id === id && seq !== undefined && data.state !== "EXECUTING",
  );

/** Runs a prompt until the agent asks. */
async function asked(
  client: Client,
  project: Project,
  request: { prompt: string; options?: object },
): Promise<PermissionRequest> {
  await execute(client, project.id, request);
  return (await client.next("permission_request")).data;
}

const answer = (client: Client, project: Project, data: object) =>
  client.ask("permission_response", { project_id: project.id, data });

test("what a person allows is done, with the input as the person edited it", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const project = await lab.project(client);
  const [wanted, edited] = [join(project.path, "a.txt"), join(project.path, "b.txt")];

  const first = await asked(client, project, { prompt: `write:${wanted}` });
  expect(first).toMatchObject({ kind: "tool", tool_name: "Write", input: { file_path: wanted } });
  await client.next("project_updated", ({ data }) => data.pending_permissions === 1);
  const reply = await answer(client, project, {
    permission_id: first.permission_id,
    decision: "allow",
  });
  expect(reply).toMatchObject({ type: "permission_resolved", data: { decision: "allow" } });
  expect((await ended(client, project)).data.state).toBe("IDLE");
  expect(existsSync(wanted)).toBeTrue();

  const second = await asked(client, project, { prompt: `write:${wanted}.never` });
  await answer(client, project, {
    permission_id: second.permission_id,
    decision: "allow",
    updated_input: { ...second.input, file_path: edited, content: "by a person\n" },
  });
  await ended(client, project);
  expect(readFileSync(edited, "utf8")).toBe("by a person\n");
  expect(existsSync(`${wanted}.never`)).toBeFalse();
});

test("what a person refuses is not done, and the model reads why", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const project = await lab.project(client);
  const path = join(project.path, "a.txt");
  const { permission_id } = await asked(client, project, { prompt: `write:${path}` });
  await answer(client, project, {
    permission_id,
    decision: "deny",
    message: "Not while I am on a train",
  });
  expect((await ended(client, project)).data).toMatchObject({ state: "IDLE", error: null });
  expect(existsSync(path)).toBeFalse();
  expect(JSON.stringify(lab.api.requests.at(-1)?.body)).toContain("Not while I am on a train");
});

test("a refusal that interrupts ends the turn, which is no failure", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const project = await lab.project(client);
  const path = join(project.path, "a.txt");
  const { permission_id } = await asked(client, project, { prompt: `write:${path}` });
  const before = lab.api.requests.length;
  await answer(client, project, { permission_id, decision: "deny", interrupt: true });
  expect((await ended(client, project)).data).toMatchObject({ state: "IDLE", error: null });
  expect(existsSync(path)).toBeFalse();
  expect(lab.api.requests.length).toBe(before);
});

test("what is remembered is not asked again in this session, also by the next process", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const project = await lab.project(client);
  // A rule for the command itself is what the CLI suggests; it suggests none for some.
  const prompt = "bash:touch remembered; curl --version";
  const { permission_id, suggestions } = await asked(client, project, { prompt });
  expect(JSON.stringify(suggestions)).toContain("addRules");
  await answer(client, project, { permission_id, decision: "allow", remember: true });
  await ended(client, project);
  const settings = join(project.path, ".claude", "settings.local.json");
  expect(existsSync(settings)).toBeFalse();

  const requests = () => client.received.filter(({ type }) => type === "permission_request").length;
  await run(client, project.id, { prompt });
  // Other options: the process is replaced, and what was allowed comes along.
  await run(client, project.id, { prompt, options: { model: "claude-haiku-4-5" } });
  expect(requests()).toBe(1);
});

test("what is remembered opens nothing else, also where the CLI would read several rules", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const project = await lab.project(client);
  const first = await asked(client, project, {
    prompt: 'bash:touch first; curl --version "(a) Bash (b)"',
  });
  expect(JSON.stringify(first.suggestions)).toContain("(a) Bash (b)");
  const { permission_id } = first;
  await answer(client, project, { permission_id, decision: "allow", remember: true });
  await ended(client, project);
  // Other options: the process is replaced.
  const other = await asked(client, project, {
    prompt: "bash:touch second; curl --version",
    options: { model: "claude-haiku-4-5" },
  });
  expect(other.input["command"]).toBe("touch second; curl --version");
  expect(existsSync(join(project.path, "second"))).toBeFalse();
});

test("of two people who answer at once exactly one is heard, a late joiner among them", async () => {
  await using lab = await Lab.start();
  const [first, late] = [await lab.client(), await lab.client()];
  const project = await lab.project(first);
  const path = join(project.path, "a.txt");
  const { permission_id } = await asked(first, project, { prompt: `write:${path}` });
  const { data } = await late.expect("project_joined", "project_join", { project_id: project.id });
  expect(data).toMatchObject({ pending_permissions: 1, permissions: [{ permission_id }] });
  const replies = await Promise.all([
    answer(late, project, { permission_id, decision: "allow" }),
    answer(first, project, { permission_id, decision: "deny" }),
  ]);
  const heard = replies.filter(({ type }) => type === "permission_resolved");
  const refused = replies.filter(({ type }) => type === "error");
  expect(heard).toHaveLength(1);
  expect(refused).toMatchObject([{ data: { code: "PERMISSION_RESOLVED" } }]);
  await ended(first, project);
  const allowed = heard.some(
    ({ data: outcome }) => "decision" in outcome && outcome.decision === "allow",
  );
  expect(existsSync(path)).toBe(allowed);
});

test.each(["default", "bypassPermissions"])(
  "a question reaches a person and its answer the model, in the mode %s",
  async (permission_mode) => {
    await using lab = await Lab.start({ PA_CLAUDE_ALLOW_BYPASS: "true" });
    const client = await lab.client();
    const project = await lab.project(client);
    const request = await asked(client, project, { prompt: "ask", options: { permission_mode } });
    expect(request).toMatchObject({ kind: "question", tool_name: "AskUserQuestion" });
    await answer(client, project, {
      permission_id: request.permission_id,
      decision: "allow",
      answers: { "Which colour?": "Blue" },
    });
    expect((await ended(client, project)).data.state).toBe("IDLE");
    expect(JSON.stringify(lab.api.requests.at(-1)?.body)).toMatch(/Which colour\?[^}]*Blue/);
  },
);

test("a plan can be sent back, and approved", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const project = await lab.project(client);
  const options = { permission_mode: "plan" };
  const back = await asked(client, project, { prompt: "plan:# First", options });
  expect(back).toMatchObject({ kind: "plan", tool_name: "ExitPlanMode" });
  await answer(client, project, {
    permission_id: back.permission_id,
    decision: "deny",
    message: "Think of the tests",
  });
  expect((await ended(client, project)).data.state).toBe("IDLE");
  expect(JSON.stringify(lab.api.requests.at(-1)?.body)).toContain("Think of the tests");

  const good = await asked(client, project, { prompt: "plan:# Second", options });
  await answer(client, project, { permission_id: good.permission_id, decision: "allow" });
  await client.next(
    "agent_message",
    ({ data }) => data["subtype"] === "status" && data["permissionMode"] === "default",
  );
  expect((await ended(client, project)).data.state).toBe("IDLE");
});

test("three sub-agents that ask at once are answered one by one", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const project = await lab.project(client);
  const path = join(project.path, "a.txt");
  await execute(client, project.id, { prompt: `subagent:3x write:${path}` });
  const requests: PermissionRequest[] = [];
  while (requests.length < 3) requests.push((await client.next("permission_request")).data);
  expect(new Set(requests.map(({ agent_id }) => agent_id)).size).toBe(3);
  const { data } = await client.expect("project_list_response", "project_list");
  expect(data.projects).toMatchObject([{ pending_permissions: 3 }]);
  for (const { permission_id } of requests.toReversed())
    await answer(client, project, { permission_id, decision: "deny" });
  expect((await ended(client, project)).data).toMatchObject({
    state: "IDLE",
    pending_permissions: 0,
  });
});

test("a kill withdraws what the agent asks, and leaves nothing", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const project = await lab.project(client);
  const { permission_id } = await asked(client, project, {
    prompt: `write:${join(project.path, "a.txt")}`,
  });
  await client.expect("project_state", "agent_kill", { project_id: project.id });
  const { data } = await client.next("permission_resolved");
  expect(data).toMatchObject({ permission_id, decision: "withdrawn" });
  expect(await lab.agents()).toEqual([]);
  const late = await answer(client, project, { permission_id, decision: "allow" });
  expect(late).toMatchObject({ data: { code: "PERMISSION_RESOLVED" } });
});
