import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdir, rmdir } from "node:fs/promises";
import { join } from "node:path";
import type { ServerData } from "../src/contract/messages.ts";
import { AgentLog } from "./support/agent-log.ts";
import { scratch, type TestApp, testApp } from "./support/app.ts";
import { Client, type Frame } from "./support/client.ts";
import { ServerProcess } from "./support/server-process.ts";

setDefaultTimeout(60_000);

const image = { media_type: "image/png", data: "iVBORw0KGgo=" };
/** Runs until it is killed, or until somebody allows what it asks. */
const busy = 'tool:Bash:{"command":"make"}';

let stack: AsyncDisposableStack;
let home: string;
let app: TestApp;
let log: AgentLog;
let client: Client;
let project_id: string;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  home = await scratch(stack);
  log = new AgentLog(home);
});

afterEach(() => stack.disposeAsync());

async function setUp(settings: Record<string, string> = {}): Promise<void> {
  app = stack.use(await testApp(settings, { home }));
  client = await app.client();
  project_id = await client.create(await app.directory());
}

const ask = (prompt: string, rest: object = {}, project = project_id) =>
  client.ask("execute", { project_id: project, data: { prompt, ...rest } });

/** Sends a prompt that must wait, and gives its id. */
async function queue(prompt: string, rest: object = {}, project = project_id): Promise<string> {
  const reply = await ask(prompt, { queue: true, ...rest }, project);
  if (reply.type !== "execution_queued") throw new Error(`Not queued: ${JSON.stringify(reply)}`);
  return reply.data.execution_id;
}

/** Starts a run that stays until it is let go. */
async function occupy(project = project_id): Promise<() => Promise<void>> {
  const reply = await ask(busy, {}, project);
  expect(reply).toMatchObject({ type: "project_state", data: { state: "EXECUTING" } });
  const { data } = await client.next("permission_request", (frame) => frame.project_id === project);
  return async () => {
    const { permission_id } = data;
    await client.expect("permission_resolved", "permission_response", {
      project_id: project,
      data: { permission_id, decision: "allow" },
    });
  };
}

const kill = (project = project_id) =>
  client.expect("project_state", "agent_kill", { project_id: project });

const started = (execution_id: string) =>
  client.next("user_message", ({ data }) => data.execution_id === execution_id);

/** Waits until a project has nothing more to do. */
const done = (project = project_id): Promise<Frame<"project_state">> =>
  client.next(
    "project_state",
    ({ seq, data, project_id: id }) =>
      id === project && seq !== undefined && data.state !== "EXECUTING" && data.queued === 0,
  );

/** What was begun, in order, by prompt. */
const begun = (by = client) =>
  by.received.flatMap((frame) => (frame.type === "user_message" ? [frame.data.prompt] : []));

async function state(project = project_id): Promise<ServerData<"project_state"> | undefined> {
  const { data } = await client.expect("project_list_response", "project_list");
  return data.projects.find(({ id }) => id === project);
}

async function another(): Promise<string> {
  return await client.create(await app.directory());
}

const statusOf = async (execution_id: string) =>
  (
    await client.expect("execution_status", "execute", {
      project_id,
      data: { prompt: "say:never", execution_id },
    })
  ).data;

describe("a prompt with queue: true", () => {
  test("waits its turn while another runs, and then runs under the id it was given", async () => {
    await setUp();
    const stranger = await app.client();
    const release = await occupy();
    const options = { model: "opus" };
    const first = await client.expect("execution_queued", "execute", {
      project_id,
      data: { prompt: "say:one", queue: true, options, images: [image] },
    });
    expect(first.data).toEqual({ execution_id: expect.any(String), position: 1 });
    const said = await client.next("execution_queued", ({ seq }) => seq !== undefined);
    expect(said.data).toEqual({
      execution_id: first.data.execution_id,
      position: 1,
      prompt: "say:one",
      options,
      images: 1,
      device: null,
    });
    const second = await client.expect("execution_queued", "execute", {
      project_id,
      data: { prompt: "say:two", queue: true },
    });
    expect(second.data.position).toBe(2);
    await stranger.next("project_updated", ({ data }) => data.queued === 2);
    expect(await state()).toMatchObject({ state: "EXECUTING", queued: 2 });

    await release();
    const one = await started(first.data.execution_id);
    expect(one.data).toMatchObject({ prompt: "say:one", options, images: 1, device: null });
    const running = await client.next("project_state", ({ data }) => data.state === "EXECUTING");
    expect(running.data).toMatchObject({ queued: 1, execution: { id: first.data.execution_id } });
    await started(second.data.execution_id);
    expect((await done()).data).toMatchObject({ state: "IDLE", error: null, usage: { runs: 3 } });
    expect(begun()).toEqual([busy, "say:one", "say:two"]);
  });

  test("is an ordinary prompt when nothing runs", async () => {
    await setUp();
    expect((await ask("say:one", { queue: true })).type).toBe("project_state");
    expect((await done()).data).toMatchObject({ state: "IDLE", usage: { runs: 1 } });
  });

  test("reaches the agent with its images", async () => {
    await setUp();
    const release = await occupy();
    await queue("say:look", { images: [image] });
    await release();
    await done();
    expect(log.prompts().at(-1)).toEqual([
      { type: "text", text: "say:look" },
      { type: "image", source: { type: "base64", ...image } },
    ]);
  });

  test("is PROCESS_ACTIVE without it, and nothing is logged", async () => {
    await setUp();
    await occupy();
    const before = await state();
    const refused = await ask("say:two");
    expect(refused).toMatchObject({ type: "error", data: { code: "PROCESS_ACTIVE" } });
    expect(await state()).toMatchObject({ last_seq: before?.last_seq, queued: 0 });
  });

  test("is RESOURCE_LIMIT when execution.queue_size prompts wait, in all projects together", async () => {
    await setUp({ PA_EXECUTION_QUEUE_SIZE: "2" });
    const other = await another();
    await occupy();
    const release = await occupy(other);
    const first = await queue("say:one");
    await queue("say:two", {}, other);
    const before = await state();
    const refused = await ask("say:three", { queue: true });
    expect(refused).toMatchObject({
      type: "error",
      data: { code: "RESOURCE_LIMIT", details: { resource: "queue" } },
    });
    expect(await state()).toMatchObject({ last_seq: before?.last_seq, queued: 1 });
    await client.expect("execution_cancelled", "execution_cancel", {
      project_id,
      data: { execution_id: first },
    });
    await queue("say:four");
    await release();
    await done(other);
  });

  test("is cancelled with the reason when it may not run any more", async () => {
    await setUp();
    const folder = await app.directory("aside");
    const release = await occupy();
    const execution_id = await queue("say:one", { options: { add_dirs: [folder] } });
    await rmdir(folder);
    await release();
    const cancelled = await client.next("execution_cancelled");
    expect(cancelled.data).toMatchObject({
      execution_id,
      reason: expect.stringContaining("does not exist"),
    });
    expect(await statusOf(execution_id)).toMatchObject({ status: "killed" });
    expect(await state()).toMatchObject({ state: "IDLE", queued: 0 });
  });
});

describe("execution_cancel", () => {
  test("takes a prompt back, and those behind it move up", async () => {
    await setUp();
    const release = await occupy();
    const [first, second] = [await queue("say:one"), await queue("say:two")];
    expect(await statusOf(second)).toEqual({ execution_id: second, status: "queued", position: 2 });
    const reply = await client.expect("execution_cancelled", "execution_cancel", {
      project_id,
      data: { execution_id: first },
    });
    expect(reply.data).toEqual({ execution_id: first });
    const event = await client.next("execution_cancelled", ({ seq }) => seq !== undefined);
    expect(event.data).toMatchObject({ execution_id: first, reason: expect.any(String) });
    expect(await statusOf(first)).toEqual({ execution_id: first, status: "killed" });
    expect(await statusOf(second)).toEqual({ execution_id: second, status: "queued", position: 1 });
    await release();
    await done();
    expect(begun()).toEqual([busy, "say:two"]);
  });

  test("is EXECUTION_NOT_FOUND for what does not wait here", async () => {
    await setUp();
    const other = await another();
    await occupy(other);
    const elsewhere = await queue("say:one", {}, other);
    const execution_id = crypto.randomUUID();
    await ask(busy, { execution_id });
    for (const id of [elsewhere, execution_id, crypto.randomUUID()]) {
      const refused = await client.ask("execution_cancel", {
        project_id,
        data: { execution_id: id },
      });
      expect(refused).toMatchObject({ type: "error", data: { code: "EXECUTION_NOT_FOUND" } });
    }
    await kill();
    expect(await state(other)).toMatchObject({ queued: 1 });
  });
});

describe("execution.max_concurrent", () => {
  test("lets prompts of other projects wait, first come first served", async () => {
    await setUp({ PA_EXECUTION_MAX_CONCURRENT: "1" });
    const [second, third] = [await another(), await another()];
    const release = await occupy();
    const reply = await ask("say:a", {}, second);
    expect(reply).toMatchObject({ type: "execution_queued", data: { position: 1 } });
    await ask("say:b", {}, third);
    await queue("say:c");
    await ask("say:d", {}, second);
    const metrics = await app.metrics.text();
    expect(metrics).toContain("pocket_agent_queue_length 4");
    expect(await state(second)).toMatchObject({ state: "IDLE", queued: 2 });
    await release();
    await done(second);
    expect(begun()).toEqual([busy, "say:a", "say:b", "say:c", "say:d"]);
    expect(await app.metrics.text()).toContain("pocket_agent_queue_length 0");
    // Never more than one at a time.
    const states = client.received.flatMap((frame) =>
      frame.type === "project_state" && frame.seq !== undefined ? [frame.data.state] : [],
    );
    for (const [at, each] of states.entries())
      expect([at, each]).toEqual([at, at % 2 === 0 ? "EXECUTING" : "IDLE"]);
  });

  test("does not let a project that is busy hold up the others", async () => {
    await setUp({ PA_EXECUTION_MAX_CONCURRENT: "2" });
    const [second, third] = [await another(), await another()];
    await occupy();
    const release = await occupy(second);
    await queue("say:mine");
    const theirs = await queue("say:theirs", {}, third);
    await release();
    await started(theirs);
    await done(third);
    expect(await state()).toMatchObject({ state: "EXECUTING", queued: 1 });
    expect(begun()).not.toContain("say:mine");
  });
});

describe("after a run that ended badly", () => {
  test.each(["error:API Error: 500", "maxturns"])("by %s the queue goes on", async (prompt) => {
    await setUp();
    const release = await occupy();
    const [bad, good] = [await queue(prompt), await queue("say:good")];
    await release();
    await started(bad);
    await client.next("project_state", ({ data }) => data.state === "ERROR" && data.queued === 1);
    await started(good);
    expect((await done()).data).toMatchObject({ state: "IDLE", error: null });
  });

  const broken = ["noresult", "cutline", "autherror", "exit1:broken", "selfkill:SIGKILL"];
  test.each(broken)("by %s it waits until that is acknowledged", async (prompt) => {
    await setUp({ PA_CLAUDE_IDLE_TIMEOUT: "0" });
    const other = await another();
    const release = await occupy();
    await queue(prompt);
    const good = await queue("say:good");
    await release();
    await client.next("project_state", ({ data }) => data.state === "ERROR");
    // Another project is not concerned, and shows that there was time enough.
    await client.run(other, "say:elsewhere");
    expect(await state()).toMatchObject({ state: "ERROR", queued: 1 });
    const acknowledged = await kill();
    expect(acknowledged.data).toMatchObject({ state: "IDLE", error: null });
    await started(good);
    expect((await done()).data).toMatchObject({ state: "IDLE" });
  });

  test("agent_new_session acknowledges too", async () => {
    await setUp();
    const release = await occupy();
    await queue("noresult");
    const good = await queue("say:good");
    await release();
    await client.next("project_state", ({ data }) => data.state === "ERROR");
    await client.expect("session_reset", "agent_new_session", { project_id });
    await started(good);
    await done();
  });

  test("and so does a plain prompt, which goes first", async () => {
    await setUp();
    const release = await occupy();
    await queue("noresult");
    await queue("say:good");
    await release();
    await client.next("project_state", ({ data }) => data.state === "ERROR");
    expect((await ask("say:first")).type).toBe("project_state");
    await done();
    expect(begun()).toEqual([busy, "noresult", "say:first", "say:good"]);
  });
});

test.each(["agent_kill", "a refusal that interrupts"])(
  "after %s the project is IDLE and the queue waits for a plain prompt, which goes first",
  async (how) => {
    await setUp();
    const other = await another();
    await ask(busy);
    const { permission_id } = (await client.next("permission_request")).data;
    await queue("say:good");
    if (how === "agent_kill") await kill();
    else
      await client.expect("permission_resolved", "permission_response", {
        project_id,
        data: { permission_id, decision: "deny", interrupt: true },
      });
    await client.settled(project_id);
    await client.run(other, "say:elsewhere");
    expect(await state()).toMatchObject({ state: "IDLE", error: null, queued: 1 });
    expect((await ask("say:first")).type).toBe("project_state");
    await done();
    expect(begun()).toEqual([busy, "say:elsewhere", "say:first", "say:good"]);
  },
);

test("project_delete drops the prompts that wait, and they never run", async () => {
  await setUp({ PA_EXECUTION_MAX_CONCURRENT: "1" });
  const other = await another();
  const release = await occupy();
  await queue("say:never", {}, other);
  const good = await queue("say:good");
  await client.expect("project_deleted", "project_delete", { project_id: other });
  expect(await app.metrics.text()).toContain("pocket_agent_queue_length 1");
  await release();
  await started(good);
  await done();
  expect(begun()).toEqual([busy, "say:good"]);
  expect(log.prompts()).toHaveLength(2);
});

describe("a restart", () => {
  /** Servers that end in their own ways, one after the other in the same home. */
  const ways: [string, () => Promise<{ url: URL; end: () => Promise<void> }>][] = [
    [
      "in order",
      async () => {
        const server = stack.use(await testApp(settings, { home }));
        return { url: server.url, end: async () => server[Symbol.asyncDispose]() };
      },
    ],
    [
      "by kill -9",
      async () => {
        const server = stack.use(await ServerProcess.start({ home, settings }));
        return { url: server.url, end: () => server.crash() };
      },
    ],
  ];
  const settings = { PA_EXECUTION_MAX_CONCURRENT: "1" };

  test.each(ways)(
    "%s keeps the prompts that wait, in their order, and runs them",
    async (_, start) => {
      const before = await start();
      client = stack.use(await Client.connect(before.url));
      const projects: string[] = [];
      for (const name of ["a", "b", "c"]) {
        const directory = join(home, "work", name);
        await mkdir(directory, { recursive: true });
        projects.push(await client.create(directory));
      }
      const [first = "", second = "", third = ""] = projects;
      project_id = first;
      await occupy();
      // The third comes before the second, which was made earlier.
      await queue("say:3a", {}, third);
      const pictured = await queue("say:2a", { images: [image] }, second);
      await queue("say:1b");
      await queue("say:3b", {}, third);
      const cancelled = await queue("say:never", {}, second);
      await client.expect("execution_cancelled", "execution_cancel", {
        project_id: second,
        data: { execution_id: cancelled },
      });
      await before.end();

      const after = await start();
      client = stack.use(await Client.connect(after.url));
      for (const id of projects)
        await client.expect("project_joined", "project_join", {
          project_id: id,
          data: { after_seq: 0 },
        });
      await done(third);
      const prompts = log.prompts().map((content) => JSON.stringify(content));
      expect(prompts).toHaveLength(4);
      for (const [at, text] of [busy, "say:3a", "say:2a", "say:3b"].entries())
        expect(prompts[at]).toContain(JSON.stringify(text));
      expect(prompts[2]).toContain(image.data);
      await client.find(
        ({ type, data }) => type === "user_message" && Object(data).execution_id === pictured,
        "the prompt with its image",
      );
      // What waits behind the run that was cut off waits for a person.
      expect(await state()).toMatchObject({ state: "ERROR", queued: 1 });
      await kill();
      await done();
      expect(begun()).toContain("say:1b");
      expect(begun()).not.toContain("say:never");
      await after.end();
    },
  );

  test.each(ways)("%s does not make the same execution_id run twice", async (_, start) => {
    const before = await start();
    client = stack.use(await Client.connect(before.url));
    const directory = join(home, "work");
    await mkdir(directory);
    project_id = await client.create(directory);
    const ids = Array.from({ length: 4 }, () => crypto.randomUUID());
    const [succeeded = "", failed = "", running = "", queued = ""] = ids;
    await client.run(project_id, "say:one", { execution_id: succeeded });
    await client.run(project_id, "error:two", { execution_id: failed });
    await ask(busy, { execution_id: running });
    await client.next("permission_request");
    await queue("say:four", { execution_id: queued });
    await before.end();

    const after = await start();
    client = stack.use(await Client.connect(after.url));
    expect(await statusOf(succeeded)).toEqual({ execution_id: succeeded, status: "succeeded" });
    expect(await statusOf(failed)).toEqual({ execution_id: failed, status: "failed" });
    expect(await statusOf(running)).toEqual({ execution_id: running, status: "failed" });
    expect(await statusOf(queued)).toEqual({ execution_id: queued, status: "queued", position: 1 });
    expect(log.prompts()).toHaveLength(3);
    await after.end();
  });
});

describe("an execution_id", () => {
  test("that is sent ten times at once is one run, and each reply says what became of it", async () => {
    await setUp();
    const clients = await Promise.all(Array.from({ length: 10 }, () => app.client()));
    const data = { prompt: "say:once", execution_id: crypto.randomUUID() };
    const replies = await Promise.all(
      clients.map((each) => each.ask("execute", { project_id, data })),
    );
    const types = replies.map(({ type }) => type);
    expect(types.filter((type) => type === "project_state")).toHaveLength(1);
    expect(types.filter((type) => type === "execution_status")).toHaveLength(9);
    for (const reply of replies)
      if (reply.type === "execution_status")
        expect(reply.data.execution_id).toBe(data.execution_id);
    const joined = await client.expect("project_joined", "project_join", {
      project_id,
      data: { after_seq: 0 },
    });
    if (joined.data.state === "EXECUTING") await client.settled(project_id);
    expect(await statusOf(data.execution_id)).toMatchObject({ status: "succeeded" });
    expect(log.prompts()).toHaveLength(1);
    expect(begun()).toEqual(["say:once"]);
  });

  test("that waits, runs, has ended well, badly or by a kill is told so", async () => {
    await setUp();
    const ids = Array.from({ length: 4 }, () => crypto.randomUUID());
    const [running = "", waiting = "", failing = "", killed = ""] = ids;
    await ask(busy, { execution_id: running });
    const { permission_id } = (await client.next("permission_request")).data;
    await queue("say:two", { execution_id: waiting });
    await queue("error:three", { execution_id: failing });
    expect(await statusOf(running)).toEqual({ execution_id: running, status: "running" });
    expect(await statusOf(failing)).toEqual({
      execution_id: failing,
      status: "queued",
      position: 2,
    });
    await client.expect("permission_resolved", "permission_response", {
      project_id,
      data: { permission_id, decision: "allow" },
    });
    await done();
    expect(await statusOf(running)).toEqual({ execution_id: running, status: "succeeded" });
    expect(await statusOf(waiting)).toEqual({ execution_id: waiting, status: "succeeded" });
    expect(await statusOf(failing)).toEqual({ execution_id: failing, status: "failed" });
    await ask(busy, { execution_id: killed });
    await kill();
    expect(await statusOf(killed)).toEqual({ execution_id: killed, status: "killed" });
    expect(log.prompts()).toHaveLength(4);
  });

  test("means nothing in another project, nor when the prompt was refused", async () => {
    await setUp();
    const other = await another();
    const execution_id = crypto.randomUUID();
    const refused = await ask("say:one", { execution_id, options: { permission_mode: "auto" } });
    expect(refused.data).toMatchObject({ code: "FORBIDDEN" });
    expect((await ask("say:one", { execution_id })).type).toBe("project_state");
    await done();
    expect((await ask("say:one", { execution_id }, other)).type).toBe("project_state");
    await done(other);
    expect(log.prompts()).toHaveLength(2);
  });
});
