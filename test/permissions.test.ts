import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { PermissionRequest } from "../src/contract/messages.ts";
import { AgentLog } from "./support/agent-log.ts";
import { scratch, type TestApp, testApp } from "./support/app.ts";
import { Client, type Frame } from "./support/client.ts";
import { ServerProcess } from "./support/server-process.ts";

setDefaultTimeout(60_000);

let stack: AsyncDisposableStack;
let app: TestApp;
let log: AgentLog;
let client: Client;
let project_id: string;

beforeEach(() => {
  stack = new AsyncDisposableStack();
});

afterEach(() => stack.disposeAsync());

async function setUp(settings: Record<string, string> = {}): Promise<void> {
  // Of its own, so that a second server can be started in it.
  const home = await scratch(stack);
  app = stack.use(await testApp(settings, { home }));
  log = new AgentLog(home);
  client = await app.client();
  project_id = await client.create(await app.directory());
}

async function execute(prompt: string, rest: object = {}): Promise<string> {
  const data = { prompt, ...rest };
  const reply = await client.expect("project_state", "execute", { project_id, data });
  return reply.data.execution?.id ?? "";
}

/** Runs a prompt until the agent has asked so many times. */
async function asked(prompt: string, rest: object = {}, times = 1): Promise<PermissionRequest[]> {
  await execute(prompt, rest);
  const requests: PermissionRequest[] = [];
  while (requests.length < times) requests.push((await client.next("permission_request")).data);
  return requests;
}

async function askedOnce(prompt: string, rest: object = {}): Promise<PermissionRequest> {
  const [request] = await asked(prompt, rest);
  if (!request) throw new Error("Nothing was asked");
  return request;
}

const answer = (permission_id: string, data: object, by = client) =>
  by.ask("permission_response", { project_id, data: { permission_id, ...data } });

const allow = (permission_id: string, data: object = {}) =>
  answer(permission_id, { decision: "allow", ...data });

/** What the agent said at the end of its turn: the outcome of its last call, among others. */
async function outcome(): Promise<unknown> {
  const said = await client.next("agent_message", ({ data }) => data.type === "result");
  return said.data["result"];
}

const resolved = (permission_id: string): Promise<Frame<"permission_resolved">> =>
  client.next(
    "permission_resolved",
    ({ seq, data }) => seq !== undefined && data.permission_id === permission_id,
  );

/** A prompt that makes the agent print a request by itself, and go on without the answer. */
const request = (id: string, asking: object) =>
  `junk:${JSON.stringify({ type: "control_request", request_id: id, request: { subtype: "can_use_tool", ...asking } })}`;
const bash = (command: string) => `tool:Bash:${JSON.stringify({ command })}`;
/** How the agent was answered, oldest first. */
const answers = () =>
  log.told("control_response").map(({ response }) => {
    const { response: said } = Object(response);
    return said;
  });

async function state() {
  const { data } = await client.expect("project_list_response", "project_list");
  return data.projects.find(({ id }) => id === project_id);
}

describe("a request", () => {
  test("is logged, published, counted, and told to clients that have not joined", async () => {
    await setUp();
    const stranger = await app.client();
    const execution_id = await execute(bash("make"));
    const frame = await client.next("permission_request");
    expect(frame).toMatchObject({
      project_id,
      seq: expect.any(Number),
      data: {
        execution_id,
        kind: "tool",
        tool_name: "Bash",
        display_name: "Bash",
        input: { command: "make" },
        suggestions: [{ type: "addRules" }],
        tool_use_id: expect.any(String),
      },
    });
    const updated = await stranger.next(
      "project_updated",
      ({ data }) => data.pending_permissions > 0,
    );
    expect(updated.data).toMatchObject({ id: project_id, state: "EXECUTING" });
    const { data } = await client.expect("messages_response", "get_messages", { project_id });
    expect(data.messages.at(-1)).toMatchObject({
      seq: frame.seq,
      direction: "server",
      message: { type: "permission_request", data: frame.data },
    });
    expect(await app.metrics.text()).toContain("pocket_agent_permissions_pending 1");

    const reply = await allow(frame.data.permission_id);
    const said = { permission_id: frame.data.permission_id, decision: "allow" } as const;
    expect(reply).toMatchObject({ type: "permission_resolved", data: said });
    expect((await resolved(said.permission_id)).data).toEqual(said);
    await stranger.next("project_updated", ({ data: now }) => now.pending_permissions === 0);
    expect(await client.settled(project_id)).toMatchObject({ state: "IDLE", error: null });
    expect(stranger.received.map(({ type }) => type)).not.toContain("permission_request");
    const metrics = await app.metrics.text();
    expect(metrics).toContain("pocket_agent_permissions_pending 0");
    expect(metrics).toContain('pocket_agent_permissions_total{decision="allow"} 1');
  });

  test("may come three at once, from sub-agents, and each has its own answer", async () => {
    await setUp();
    const requests = await asked("parallel:3", {}, 3);
    expect(requests.map(({ agent_id }) => agent_id)).toEqual([
      "a0000000000000000",
      "a0000000000000001",
      "a0000000000000002",
    ]);
    expect(await state()).toMatchObject({ state: "EXECUTING", pending_permissions: 3 });
    const [first, second, third] = requests;
    await allow(third?.permission_id ?? "");
    await answer(first?.permission_id ?? "", { decision: "deny", message: "not the first" });
    expect(await state()).toMatchObject({ state: "EXECUTING", pending_permissions: 1 });
    await allow(second?.permission_id ?? "");
    expect(await client.settled(project_id)).toMatchObject({ pending_permissions: 0, error: null });
    const told = client.events(project_id).flatMap(({ type, data }) => {
      const { message } = Object(data);
      const [block] =
        type === "agent_message" && Object(data).type === "user" ? message.content : [];
      return block ? [block.content] : [];
    });
    expect(told.toSorted((a, b) => a.localeCompare(b))).toEqual([
      expect.stringContaining("parallel-1"),
      expect.stringContaining("parallel-2"),
      "not the first",
    ]);
  });

  test("that comes before the line with its call is a request like any other", async () => {
    await setUp();
    const { permission_id, tool_use_id } = await askedOnce("early");
    const call = await client.find(
      ({ seq, data }) =>
        seq !== undefined && JSON.stringify(data).includes(`"id":"${tool_use_id}"`),
      "the call",
    );
    const asking = await client.find(({ type }) => type === "permission_request", "the request");
    expect(call.seq).toBeGreaterThan(asking.seq ?? Infinity);
    await allow(permission_id);
    expect(await outcome()).toContain("Write ran with");
    expect(await client.settled(project_id)).toMatchObject({ state: "IDLE" });
  });

  test("can be answered by a client that joined only after it was made", async () => {
    await setUp();
    const requests = await asked("parallel:2", {}, 2);
    const late = await app.client();
    const joined = await late.expect("project_joined", "project_join", { project_id });
    expect(joined.data.pending_permissions).toBe(2);
    expect(joined.data.permissions).toEqual(requests);
    for (const { permission_id } of joined.data.permissions)
      expect(await answer(permission_id, { decision: "allow" }, late)).toMatchObject({
        type: "permission_resolved",
      });
    expect(await late.settled(project_id)).toMatchObject({ state: "IDLE" });
    const after = await late.expect("project_joined", "project_join", { project_id });
    expect(after.data.permissions).toEqual([]);
  });

  test("needs no client: it is there for whoever comes back", async () => {
    await setUp();
    const { permission_id } = await askedOnce(bash("make"));
    await client[Symbol.asyncDispose]();
    client = await app.client();
    const { data } = await client.expect("project_joined", "project_join", { project_id });
    expect(data.permissions.map((open) => open.permission_id)).toEqual([permission_id]);
    await allow(permission_id);
    expect(await client.settled(project_id)).toMatchObject({ state: "IDLE" });
  });
});

describe("an answer", () => {
  test("wins if it is the first; those that come later learn the outcome", async () => {
    await setUp();
    const { permission_id } = await askedOnce(bash("make"));
    const clients = await Promise.all(Array.from({ length: 5 }, () => app.client()));
    const replies = await Promise.all(
      clients.map((each, index) =>
        answer(permission_id, { decision: index % 2 ? "allow" : "deny" }, each),
      ),
    );
    const won = replies.filter(({ type }) => type === "permission_resolved");
    expect(won).toHaveLength(1);
    const outcomes = replies.flatMap((reply) => (reply.type === "error" ? [reply.data] : []));
    expect(outcomes).toHaveLength(4);
    for (const { code, details } of outcomes)
      expect({ code, details }).toEqual({ code: "PERMISSION_RESOLVED", details: won[0]?.data });
    await client.settled(project_id);
    const events = client.events(project_id).filter(({ type }) => type === "permission_resolved");
    expect(events).toHaveLength(1);
    expect(answers()).toHaveLength(1);
  });

  test("to a request that never was is PERMISSION_NOT_FOUND, in another project too", async () => {
    await setUp();
    const { permission_id } = await askedOnce(bash("make"));
    const unknown = await allow(crypto.randomUUID());
    expect(unknown.data).toMatchObject({ code: "PERMISSION_NOT_FOUND" });
    const other = await client.create(await app.directory());
    const elsewhere = await client.ask("permission_response", {
      project_id: other,
      data: { permission_id, decision: "allow" },
    });
    expect(elsewhere.data).toMatchObject({ code: "PERMISSION_NOT_FOUND" });
    expect(await state()).toMatchObject({ pending_permissions: 1 });
  });

  test("with updated_input decides what runs", async () => {
    await setUp();
    const { permission_id } = await askedOnce(bash("rm -rf /"));
    await allow(permission_id, { updated_input: { command: "ls", timeout: 7 } });
    expect(await outcome()).toBe('done: Bash ran with {"command":"ls","timeout":7}');
  });

  test("that allows without more lets run what was asked, and applies no suggestion", async () => {
    await setUp();
    const { permission_id, input } = await askedOnce(bash("make"));
    await allow(permission_id);
    await client.settled(project_id);
    expect(answers()).toEqual([{ behavior: "allow", updatedInput: input }]);
  });

  test("that denies tells the agent why, and the run goes on", async () => {
    await setUp();
    const { permission_id } = await askedOnce(bash("make"));
    const reply = await answer(permission_id, { decision: "deny", message: "Use ninja" });
    expect(reply).toMatchObject({
      type: "permission_resolved",
      data: { permission_id, decision: "deny", reason: "Use ninja" },
    });
    expect(await outcome()).toBe("done: Use ninja");
    expect(await client.settled(project_id)).toMatchObject({ state: "IDLE", error: null });
  });

  test("that denies and interrupts ends the run IDLE, although its result says is_error", async () => {
    await setUp();
    const { permission_id } = await askedOnce(`${bash("make")}\nsay:never`);
    await answer(permission_id, { decision: "deny", interrupt: true });
    const result = await client.next("agent_message", ({ data }) => data.type === "result");
    expect(result.data).toMatchObject({ is_error: true, subtype: "error_during_execution" });
    expect(await client.settled(project_id)).toMatchObject({ state: "IDLE", error: null });
    expect(client.events(project_id).map(({ type }) => type)).not.toContain("error");
    // It is the same agent that takes the next prompt.
    expect(await client.run(project_id, "say:on")).toMatchObject({ state: "IDLE" });
    expect(log.starts()).toHaveLength(1);
  });

  const input = { questions: [{ question: "Which?" }, { question: "Why?" }] };
  const misfits: [string, string, object, string][] = [
    ["answers to what is no question", bash("make"), { answers: { "Which?": "x" } }, "answers"],
    ["a message that goes with allowing", bash("make"), { message: "fine" }, "message"],
    ["interrupt with allow", bash("make"), { interrupt: true }, "interrupt"],
    [
      "updated_input with deny",
      bash("make"),
      { decision: "deny", updated_input: {} },
      "updated_input",
    ],
    ["remember with deny", bash("make"), { decision: "deny", remember: true }, "remember"],
    ["answers with deny", "ask", { decision: "deny", answers: {} }, "answers"],
    [
      "an answer to a question that nobody asked",
      "ask",
      { answers: { "Which colour?": "Red", more: "x" } },
      "answers",
    ],
    [
      "a question without its answer",
      `tool:AskUserQuestion:${JSON.stringify(input)}`,
      { answers: { "Which?": "x" } },
      "answers",
    ],
    ["no answer to a question", "ask", {}, "answers"],
    [
      "answers besides updated_input",
      "ask",
      { answers: { "Which colour?": "Red" }, updated_input: {} },
      "answers",
    ],
    ["a decision that is none", bash("make"), { decision: "maybe" }, "decision"],
    ["an input that is no object", bash("make"), { updated_input: ["ls"] }, "updated_input"],
    [
      "an answer that is no text",
      "ask",
      { answers: { "Which colour?": 7 } },
      "answers.Which colour?",
    ],
    ["an unknown field", bash("make"), { always: true }, "always"],
  ];
  test.each(misfits)(
    "is refused for %s, and the request stays open",
    async (_, prompt, ...[data, path]) => {
      await setUp();
      const { permission_id, kind } = await askedOnce(prompt);
      const refused = await allow(permission_id, data);
      expect(refused).toMatchObject({
        type: "error",
        data: { code: "INVALID_MESSAGE", details: { path } },
      });
      expect(await state()).toMatchObject({ state: "EXECUTING", pending_permissions: 1 });
      expect(answers()).toEqual([]);
      const right = { "Which colour?": "Red", "Which?": "x", "Why?": "y" };
      const questions = prompt === "ask" ? ["Which colour?"] : ["Which?", "Why?"];
      const given = Object.entries(right).filter(([question]) => questions.includes(question));
      await allow(permission_id, kind === "question" ? { answers: Object.fromEntries(given) } : {});
      expect(await client.settled(project_id)).toMatchObject({ state: "IDLE", error: null });
    },
  );
});

describe("remember", () => {
  const suggestions = [
    { type: "setMode", mode: "acceptEdits", destination: "session" },
    {
      type: "addRules",
      rules: [{ toolName: "Bash", ruleContent: "make *" }],
      behavior: "allow",
      destination: "localSettings",
    },
    {
      type: "addRules",
      rules: [{ toolName: "Bash", ruleContent: "rm *" }],
      behavior: "deny",
      destination: "session",
    },
    { type: "addDirectories", directories: ["/usr/share"], destination: "userSettings" },
    {
      type: "removeRules",
      rules: [{ toolName: "Read" }],
      behavior: "allow",
      destination: "session",
    },
  ];

  test("applies rules and directories the agent suggests, for the session only, never a mode", async () => {
    await setUp();
    const asking = {
      tool_name: "Bash",
      input: { command: "make all" },
      permission_suggestions: suggestions,
    };
    const { permission_id, suggestions: shown } = await askedOnce(`${request("r", asking)}\nhang`);
    expect(shown).toEqual(suggestions);
    await allow(permission_id, { remember: true });
    await client.expect("project_state", "agent_kill", { project_id });
    const [told] = answers();
    expect(told).toEqual({
      behavior: "allow",
      updatedInput: asking.input,
      updatedPermissions: [
        { ...suggestions[1], destination: "session" },
        { ...suggestions[3], destination: "session" },
      ],
    });
    // What is remembered goes with the session, to whatever process continues it.
    await client.run(project_id, "say:again");
    const { argv } = log.last();
    expect(argv.filter((word) => /^--(allowed-tools|add-dir|permission-mode)=/.test(word))).toEqual(
      ["--permission-mode=default", "--allowed-tools=Bash(make *)", "--add-dir=/usr/share"],
    );
  });

  test("asks no second time in the same process, in its successor, and after a restart", async () => {
    await setUp({ PA_CLAUDE_IDLE_TIMEOUT: "0" });
    const { permission_id } = await askedOnce(`${bash("make")}\n${bash("make")}`);
    await allow(permission_id, { remember: true });
    await client.settled(project_id);
    await client.run(project_id, bash("make"));
    expect(log.last().argv).toContain("--allowed-tools=Bash(make)");
    expect(
      client.events(project_id).filter(({ type }) => type === "permission_request"),
    ).toHaveLength(1);

    const { home } = app;
    await app[Symbol.asyncDispose]();
    app = stack.use(await testApp({}, { home }));
    client = await app.client();
    await client.run(project_id, bash("make"));
    expect(log.starts()).toHaveLength(3);
    expect(log.last().argv).toContain("--allowed-tools=Bash(make)");
  });

  test("opens one command and no other, also where the CLI would read several rules", async () => {
    await setUp({ PA_CLAUDE_IDLE_TIMEOUT: "0" });
    const { permission_id } = await askedOnce(bash('make "(a) Bash (b)"'));
    await allow(permission_id, { remember: true });
    await client.settled(project_id);
    const other = await askedOnce(bash("make clean"));
    expect(other.input).toEqual({ command: "make clean" });
    await answer(other.permission_id, { decision: "deny" });
    await client.settled(project_id);
  });

  test("is looked at again when it is read from the disk", async () => {
    await setUp();
    await client.run(project_id, "say:so that there is a session");
    const { home } = app;
    await app[Symbol.asyncDispose]();
    const path = join(home, "data", "projects", project_id, "metadata.json");
    const metadata = await Bun.file(path).json();
    metadata.remembered.rules = ['Bash(make "(a) Bash (b)")', "Bash(make)"];
    await Bun.write(path, JSON.stringify(metadata));

    app = stack.use(await testApp({}, { home }));
    client = await app.client();
    await client.run(project_id, bash("make"));
    const rules = log.last().argv.filter((word) => word.startsWith("--allowed-tools="));
    expect(rules).toEqual(["--allowed-tools=Bash(make)"]);
  });

  test("ends with the session", async () => {
    await setUp();
    const { permission_id } = await askedOnce(bash("make"));
    await allow(permission_id, { remember: true });
    await client.settled(project_id);
    await client.expect("session_reset", "agent_new_session", { project_id });
    const again = await askedOnce(bash("make"));
    expect(log.last().argv.join(" ")).not.toContain("--allowed-tools");
    await allow(again.permission_id);
    await client.settled(project_id);
  });
});

describe("a request is withdrawn", () => {
  test("when the agent no longer asks", async () => {
    await setUp();
    const [first, ...others] = await asked("parallel:3", {}, 3);
    await answer(first?.permission_id ?? "", { decision: "deny", interrupt: true });
    for (const { permission_id } of others) {
      const { data } = await resolved(permission_id);
      expect(data).toMatchObject({ decision: "withdrawn", reason: "the agent no longer asks" });
    }
    expect(await client.settled(project_id)).toMatchObject({
      state: "IDLE",
      pending_permissions: 0,
    });
    const late = await allow(others[0]?.permission_id ?? "");
    expect(late.data).toMatchObject({
      code: "PERMISSION_RESOLVED",
      details: { decision: "withdrawn" },
    });
  });

  test("by a kill, before its reply", async () => {
    await setUp();
    const requests = await asked("parallel:3", {}, 3);
    const killed = await client.expect("project_state", "agent_kill", { project_id });
    expect(killed.data).toMatchObject({ state: "IDLE", pending_permissions: 0, error: null });
    for (const { permission_id } of requests)
      expect((await resolved(permission_id)).data).toEqual({
        permission_id,
        decision: "withdrawn",
        reason: "the run was stopped",
      });
    expect(answers()).toEqual([]);
  });

  test("by the end of the run", async () => {
    await setUp();
    const asking = { tool_name: "Bash", input: { command: "make" } };
    const { permission_id } = await askedOnce(`${request("r", asking)}\nsay:done`);
    const { data, seq } = await resolved(permission_id);
    expect(data).toMatchObject({ decision: "withdrawn", reason: "the run ended" });
    const end = await client.next("project_state", (frame) => frame.data.state === "IDLE");
    expect(end.seq).toBeGreaterThan(seq ?? Infinity);
    expect(end.data.pending_permissions).toBe(0);
  });

  test("by the death of the agent", async () => {
    await setUp();
    const asking = { tool_name: "Bash", input: { command: "make" } };
    const { permission_id } = await askedOnce(`${request("r", asking)}\nselfkill:SIGKILL`);
    const { data } = await resolved(permission_id);
    expect(data).toMatchObject({ decision: "withdrawn", reason: "the agent ended" });
    expect(await client.settled(project_id)).toMatchObject({
      state: "ERROR",
      pending_permissions: 0,
      error: { code: "EXECUTION_FAILED" },
    });
  });

  test.each([
    ["that is open when the server is told to stop", bash("make")],
    ["that comes while it waits for its runs", `sleep:500\n${bash("make")}`],
  ])("%s at once, and the run ends as stopped by the server", async (when, prompt) => {
    // Longer than any client waits here.
    await setUp({ PA_TIMEOUTS_SHUTDOWN: "10m" });
    if (when.includes("open")) await askedOnce(prompt);
    else await execute(prompt);
    const drained = app.app.drain("SIGTERM");
    const { data } = await client.next("permission_resolved");
    expect(data).toMatchObject({ decision: "withdrawn", reason: "the server was stopped" });
    expect(await client.settled(project_id)).toMatchObject({
      state: "ERROR",
      pending_permissions: 0,
      error: {
        code: "EXECUTION_FAILED",
        message: expect.stringContaining("the server was stopped"),
      },
    });
    await drained;
  });

  test("with a reason after kill -9 of the server, and a late answer learns of it", async () => {
    const home = await scratch(stack);
    let open: PermissionRequest[];
    {
      await using server = await ServerProcess.start({ home });
      client = await Client.connect(server.url);
      const directory = join(home, "work");
      await mkdir(directory);
      project_id = await client.create(directory);
      open = await asked("parallel:3", {}, 3);
      await allow(open.shift()?.permission_id ?? "");
      await server.crash();
      await client[Symbol.asyncDispose]();
    }
    const server = stack.use(await ServerProcess.start({ home }));
    client = stack.use(await Client.connect(server.url));
    const joined = await client.expect("project_joined", "project_join", {
      project_id,
      data: { after_seq: 0 },
    });
    expect(joined.data).toMatchObject({ state: "ERROR", permissions: [], pending_permissions: 0 });
    await client.next("caught_up");
    const ends = client.events(project_id).filter(({ type }) => type === "permission_resolved");
    const reason = "the server went down";
    expect(ends).toMatchObject([
      { data: { decision: "allow" } },
      ...open.map(({ permission_id }) => ({
        data: { permission_id, decision: "withdrawn", reason },
      })),
    ]);
    const late = await allow(open[0]?.permission_id ?? "");
    expect(late.data).toMatchObject({
      code: "PERMISSION_RESOLVED",
      details: { decision: "withdrawn", reason: "the server went down" },
    });
    expect(await client.run(project_id, "say:on")).toMatchObject({ state: "IDLE", error: null });
  });
});

describe("time", () => {
  test("execution.permission_timeout denies, with that reason", async () => {
    await setUp({ PA_EXECUTION_PERMISSION_TIMEOUT: "100ms" });
    const { permission_id } = await askedOnce(bash("make"));
    const reason = "Nobody answered in time";
    expect((await resolved(permission_id)).data).toEqual({
      permission_id,
      decision: "deny",
      reason,
    });
    expect(await outcome()).toBe(`done: ${reason}`);
    expect(await client.settled(project_id)).toMatchObject({ state: "IDLE", error: null });
    expect((await allow(permission_id)).data).toMatchObject({ code: "PERMISSION_RESOLVED" });
  });

  test.each(["PA_EXECUTION_TIMEOUT", "PA_TIMEOUTS_EXECUTION_TOTAL"])(
    "%s stands still while somebody is asked",
    async (limit) => {
      await setUp({ [limit]: "4s" });
      const { permission_id } = await askedOnce(bash("make"));
      // A run that begins later and asks nobody tells that the time has passed.
      const other = await client.create(await app.directory());
      const data = { prompt: "hang" };
      await client.expect("project_state", "execute", { project_id: other, data });
      const timedOut = await client.settled(other);
      expect(timedOut).toMatchObject({ state: "ERROR", error: { code: "EXECUTION_TIMEOUT" } });
      expect(await state()).toMatchObject({ state: "EXECUTING", pending_permissions: 1 });
      await allow(permission_id);
      expect(await client.settled(project_id)).toMatchObject({ state: "IDLE", error: null });
    },
  );
});

describe("a question", () => {
  const modes = ["default", "plan", "acceptEdits", "dontAsk", "bypassPermissions", "auto"];
  test.each(modes)("reaches people in the mode %s", async (permission_mode) => {
    await setUp({ PA_CLAUDE_ALLOW_BYPASS: "true", IS_SANDBOX: "1" });
    const { permission_id, kind, input } = await askedOnce("ask", { options: { permission_mode } });
    expect(kind).toBe("question");
    expect(input["questions"]).toMatchObject([{ question: "Which colour?" }]);
    await allow(permission_id, { answers: { "Which colour?": "Blue" } });
    expect(await outcome()).toContain('"Which colour?"="Blue"');
    expect(answers()[0].updatedInput).toEqual({ ...input, answers: { "Which colour?": "Blue" } });
  });

  test("with several choices is answered with all of them in one text", async () => {
    await setUp();
    const questions = [
      { question: "Which?", multiSelect: true, options: [{ label: "A" }, { label: "B, C" }] },
      { question: "Why?", multiSelect: false, options: [] },
    ];
    const { permission_id } = await askedOnce(
      `tool:AskUserQuestion:${JSON.stringify({ questions })}`,
    );
    await allow(permission_id, { answers: { "Which?": ["A", "B, C"], "Why?": "Because" } });
    expect(await outcome()).toContain('"Which?"="A, B, C", "Why?"="Because"');
  });

  test("can be refused like any other request", async () => {
    await setUp();
    const { permission_id } = await askedOnce("ask");
    await answer(permission_id, { decision: "deny", message: "You decide" });
    expect(await outcome()).toBe("done: You decide");
  });
});

describe("a plan", () => {
  test("that is sent back is planned on, and allowed it leaves the plan mode", async () => {
    await setUp();
    const first = await askedOnce("plan:# First\nplan:# Second", {
      options: { permission_mode: "plan" },
    });
    expect(first).toMatchObject({
      kind: "plan",
      tool_name: "ExitPlanMode",
      input: { plan: "# First" },
    });
    await answer(first.permission_id, { decision: "deny", message: "Add tests" });
    const second = (await client.next("permission_request")).data;
    expect(second).toMatchObject({ kind: "plan", input: { plan: "# Second" } });
    expect(await state()).toMatchObject({ permission_mode: "plan" });
    const told = client.events(project_id).map(({ data }) => JSON.stringify(data));
    expect(told.filter((text) => text.includes('"content":"Add tests"'))).toHaveLength(1);
    await allow(second.permission_id);
    const status = await client.next(
      "agent_message",
      ({ data }) => "permissionMode" in data && data["subtype"] === "status",
    );
    expect(status.data["permissionMode"]).toBe("default");
    expect(await outcome()).toContain("User has approved your plan");
    await client.settled(project_id);
  });

  test("reaches people in the mode bypassPermissions too", async () => {
    await setUp({ PA_CLAUDE_ALLOW_BYPASS: "true", IS_SANDBOX: "1" });
    const options = { permission_mode: "bypassPermissions" };
    const { permission_id, kind } = await askedOnce("plan", { options });
    expect(kind).toBe("plan");
    await allow(permission_id);
    expect(await client.settled(project_id)).toMatchObject({ state: "IDLE" });
  });
});
