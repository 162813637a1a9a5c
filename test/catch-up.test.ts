import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { scratch, type TestApp, testApp } from "./support/app.ts";
import type { Client, Frame } from "./support/client.ts";
import { Continuity } from "./support/continuity.ts";
import { opcodes, RawSocket } from "./support/raw-socket.ts";

setDefaultTimeout(120_000);

let stack: AsyncDisposableStack;
let home: string;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  home = await scratch(stack);
});

afterEach(() => stack.disposeAsync());

async function startApp(settings: Record<string, string> = {}): Promise<TestApp> {
  return stack.use(await testApp(settings, { home }));
}

async function execute(client: Client, project_id: string, prompt: string): Promise<void> {
  await client.expect("project_state", "execute", { project_id, data: { prompt } });
}

async function run(client: Client, project_id: string, prompt: string) {
  await execute(client, project_id, prompt);
  return await client.settled(project_id);
}

async function subscribe(client: Client, project_id: string, data: object = {}) {
  return (await client.expect("project_joined", "project_join", { project_id, data })).data;
}

const numbers = (frames: readonly Frame[]) => frames.map(({ seq }) => seq);
const upTo = (last: number, first = 1) =>
  Array.from({ length: last - first + 1 }, (_, index) => first + index);
const since = (client: Client, frame: Frame) =>
  client.received.slice(client.received.indexOf(frame) + 1);
const deltasOf = (client: Client) =>
  client.received.filter(
    (frame) => frame.type === "agent_message" && frame.data.type === "stream_event",
  );
const caughtUp = (client: Client) => client.next("caught_up");

/** A project with a short history, and somebody who saw it happen. */
async function withHistory(app: TestApp) {
  const witness = await app.client();
  const project_id = await witness.create(await app.directory());
  const { last_seq, epoch } = await run(witness, project_id, "say:one\nsay:two\nsay:three");
  return { witness, project_id, last_seq, epoch };
}

describe("project_join", () => {
  test("without after_seq is fresh: nothing old, caught_up, then what happens", async () => {
    const app = await startApp();
    const { witness, project_id, last_seq } = await withHistory(app);
    const client = await app.client();
    const joined = await subscribe(client, project_id);
    expect(joined).toMatchObject({ resume: "fresh", from: last_seq, last_seq, permissions: [] });
    expect((await caughtUp(client)).data).toEqual({ seq: last_seq });
    const state = await run(witness, project_id, "say:more");
    await client.settled(project_id);
    expect(numbers(client.events(project_id))).toEqual(upTo(state.last_seq, last_seq + 1));
  });

  test("with after_seq is ok: all that follows it, once and in order, then caught_up, then live", async () => {
    const app = await startApp();
    const { witness, project_id, last_seq, epoch } = await withHistory(app);
    const places = [0, 1, last_seq - 1, last_seq];
    const clients = await Promise.all(places.map(() => app.client()));
    for (const [index, after_seq] of places.entries()) {
      const client = clients[index] ?? witness;
      const reply = await client.expect("project_joined", "project_join", {
        project_id,
        data: { after_seq, epoch },
      });
      expect(reply.data).toMatchObject({ resume: "ok", from: after_seq });
      const end = await caughtUp(client);
      expect(end.data.seq).toBe(last_seq);
      const replay = since(client, reply);
      expect(replay.slice(0, replay.indexOf(end))).toEqual(
        witness.events(project_id).slice(after_seq),
      );
    }
    const { last_seq: now } = await run(witness, project_id, "say:live");
    for (const [index, after_seq] of places.entries()) {
      const client = clients[index] ?? witness;
      await client.find(({ seq }) => seq === now, "the last event");
      expect(client.events(project_id)).toEqual(witness.events(project_id).slice(after_seq));
    }
  });

  test("with an after_seq that was never reached is a reset, from the beginning", async () => {
    const app = await startApp();
    const { project_id, last_seq, epoch } = await withHistory(app);
    const client = await app.client();
    const joined = await subscribe(client, project_id, { after_seq: last_seq + 1, epoch });
    expect(joined).toMatchObject({ resume: "reset", from: 0, epoch });
    await caughtUp(client);
    expect(numbers(client.events(project_id))).toEqual(upTo(last_seq));
  });

  test("with the number of another epoch is a reset, from the beginning", async () => {
    const app = await startApp();
    const { project_id, last_seq } = await withHistory(app);
    const client = await app.client();
    const joined = await subscribe(client, project_id, { after_seq: 2, epoch: "0123456789ab" });
    expect(joined).toMatchObject({ resume: "reset", from: 0 });
    await caughtUp(client);
    expect(numbers(client.events(project_id))).toEqual(upTo(last_seq));
  });

  test("after the log was lost is a reset: numbers go on, under another epoch", async () => {
    let known = { project_id: "", last_seq: 0, epoch: "" };
    {
      await using app = await testApp({}, { home });
      known = await withHistory(app);
    }
    const { project_id, last_seq, epoch } = known;
    rmSync(join(home, "data", "projects", project_id, "logs"), { recursive: true });
    const app = await startApp();
    const client = await app.client();
    const joined = await subscribe(client, project_id, { after_seq: last_seq, epoch });
    expect(joined.resume).toBe("reset");
    expect(joined.epoch).not.toBe(epoch);
    expect(joined.last_seq).toBe(last_seq);
    const notice = await client.next("notice");
    expect(notice.data.code).toBe("LOG_REPAIRED");
    expect((await caughtUp(client)).data.seq).toBe(last_seq);
    await run(client, project_id, "say:on we go");
    expect(client.events(project_id)[0]).toMatchObject({ type: "user_message", seq: last_seq + 1 });
  });

  test("older than what log_rotation.keep_days keeps is truncated, from the first that is kept", async () => {
    let known = { project_id: "", last_seq: 0, epoch: "" };
    {
      await using app = await testApp({ PA_LOG_ROTATION_COUNT: "4" }, { home });
      known = await withHistory(app);
    }
    const { project_id, last_seq, epoch } = known;
    const logs = join(home, "data", "projects", project_id, "logs");
    const [oldest = ""] = readdirSync(logs).toSorted();
    const text = readFileSync(join(logs, oldest), "utf8");
    writeFileSync(join(logs, oldest), text.replaceAll(/"timestamp":"\d{4}/g, '"timestamp":"2020'));
    const first = text.trimEnd().split("\n").length;

    const app = await startApp({ PA_LOG_ROTATION_KEEP_DAYS: "7" });
    const client = await app.client();
    const joined = await subscribe(client, project_id, { after_seq: first - 1, epoch });
    expect(joined).toMatchObject({ resume: "truncated", from: first, epoch, last_seq });
    await caughtUp(client);
    expect(numbers(client.events(project_id))).toEqual(upTo(last_seq, first + 1));
    const other = await app.client();
    expect(await subscribe(other, project_id, { after_seq: first, epoch })).toMatchObject({
      resume: "ok",
      from: first,
    });
  });

  test("of a joined project replaces the subscription", async () => {
    const app = await startApp();
    const { witness, project_id, last_seq, epoch } = await withHistory(app);
    const client = await app.client();
    await subscribe(client, project_id);
    await caughtUp(client);
    const again = await client.expect("project_joined", "project_join", {
      project_id,
      data: { after_seq: 1, epoch, deltas: false },
    });
    await caughtUp(client);
    const state = await run(witness, project_id, "stream:20");
    await client.settled(project_id);
    expect(numbers(since(client, again).filter(({ seq }) => seq))).toEqual(upTo(state.last_seq, 2));
    expect(deltasOf(witness).length).toBeGreaterThan(20);
    expect(deltasOf(client)).toEqual([]);
    expect(last_seq).toBeGreaterThan(1);
  });

  test("again and again while the agent writes gives each event once after each join", async () => {
    const app = await startApp({ PA_LIMITS_MESSAGE_RATE: "100000" });
    const witness = await app.client();
    const project_id = await witness.create(await app.directory());
    const client = await app.client();
    const checker = new Continuity(project_id);
    client.socket.addEventListener("message", ({ data }) => checker.receive(String(data)));
    await execute(witness, project_id, "flood:3000");
    for (let round = 0; round < 50; round += 1)
      client.send("project_join", { project_id, data: { after_seq: 0, deltas: false } });
    const { last_seq } = await witness.settled(project_id);
    await client.find(({ seq }) => seq === last_seq, "the last event");
    expect(checker).toMatchObject({ faults: [], joins: 50, seq: last_seq });
  });

  test("says LIVE with deltas by default, and without them when asked", async () => {
    const app = await startApp();
    const { witness, project_id } = await withHistory(app);
    const [eager, sober] = [await app.client(), await app.client()];
    await subscribe(eager, project_id);
    await subscribe(sober, project_id, { deltas: false });
    await Promise.all([caughtUp(eager), caughtUp(sober)]);
    await run(witness, project_id, "stream:20");
    await Promise.all([eager.settled(project_id), sober.settled(project_id)]);
    expect(deltasOf(eager).length).toBeGreaterThan(20);
    expect(deltasOf(eager).every(({ seq }) => seq === undefined)).toBe(true);
    expect(deltasOf(sober)).toEqual([]);
    expect(sober.events(project_id)).toEqual(eager.events(project_id));
  });

  test("keeps two joined projects apart", async () => {
    const app = await startApp();
    const client = await app.client();
    const ids = [
      await client.create(await app.directory()),
      await client.create(await app.directory()),
    ];
    for (const project_id of ids) await subscribe(client, project_id);
    await Promise.all(ids.map((project_id) => execute(client, project_id, "flood:200")));
    for (const project_id of ids) {
      const last = (frame: Frame) =>
        frame.project_id === project_id &&
        frame.seq !== undefined &&
        frame.type === "project_state" &&
        frame.data.state === "IDLE";
      const end = await client.find(last, "the end");
      expect(numbers(client.events(project_id))).toEqual(upTo(end.seq ?? 0));
    }
  });
});

test("execute subscribes a client that has not joined, before user_message", async () => {
  const app = await startApp();
  const { project_id, last_seq } = await withHistory(app);
  const client = await app.client();
  const { last_seq: end } = await run(client, project_id, "stream:3");
  const mine = client.received.filter((frame) => frame.project_id === project_id);
  const kinds = mine.filter(({ type }) => type !== "project_updated").map(({ type }) => type);
  expect(kinds.slice(0, 2)).toEqual(["caught_up", "user_message"]);
  expect(numbers(client.events(project_id))).toEqual(upTo(end, last_seq + 1));
  expect(deltasOf(client).length).toBeGreaterThan(0);
});

test("execute leaves the subscription of a client that has joined as it is", async () => {
  const app = await startApp();
  const { project_id } = await withHistory(app);
  const client = await app.client();
  await subscribe(client, project_id, { deltas: false });
  await run(client, project_id, "stream:3");
  expect(client.received.filter(({ type }) => type === "caught_up")).toHaveLength(1);
  expect(deltasOf(client)).toEqual([]);
});

test("after project_left nothing of the project comes but what everybody hears", async () => {
  const app = await startApp();
  const { witness, project_id } = await withHistory(app);
  const client = await app.client();
  await subscribe(client, project_id);
  await execute(witness, project_id, "stream:50\nhang");
  await client.next("agent_message");
  const left = await client.expect("project_left", "project_leave", { project_id });
  expect(left).toMatchObject({ project_id, data: {} });
  await witness.expect("project_state", "agent_kill", { project_id });
  await client.expect("pong", "ping");
  const types = since(client, left)
    .filter((frame) => frame.project_id === project_id)
    .map(({ type }) => type);
  expect(types).toEqual(["project_updated"]);
});

test("leaving in the middle of a replay ends it", async () => {
  const app = await startApp();
  const witness = await app.client();
  const project_id = await witness.create(await app.directory());
  const { last_seq } = await run(witness, project_id, "flood:3000:1000");
  const client = await app.client();
  client.send("project_join", { project_id, data: { after_seq: 0 } });
  const left = await client.expect("project_left", "project_leave", { project_id });
  await client.expect("pong", "ping");
  expect(since(client, left).filter(({ seq }) => seq)).toEqual([]);
  expect(client.events(project_id).length).toBeLessThan(last_seq);
  expect(client.received.filter(({ type }) => type === "caught_up")).toEqual([]);
});

test("a dropped client that returns with its last number has missed nothing", async () => {
  const app = await startApp();
  const witness = await app.client();
  const project_id = await witness.create(await app.directory());
  const first = await app.client();
  const { epoch } = await subscribe(first, project_id);
  await execute(witness, project_id, "flood:2000");
  await first.find(({ seq }) => seq !== undefined && seq >= 100, "event 100");
  first.socket.close();
  await first.closed;
  const seen = first.events(project_id);
  const after_seq = seen.at(-1)?.seq ?? 0;
  const second = await app.client();
  expect(await subscribe(second, project_id, { after_seq, epoch })).toMatchObject({ resume: "ok" });
  const { last_seq } = await witness.settled(project_id);
  await second.find(({ seq }) => seq === last_seq, "the last event");
  expect([...seen, ...second.events(project_id)]).toEqual(witness.events(project_id));
});

test("a client that stops reading is served from the log later, and the others notice nothing", async () => {
  const app = await startApp();
  const witness = await app.client();
  const project_id = await witness.create(await app.directory());
  const checker = new Continuity(project_id);
  using slow = await RawSocket.open(app.url, {
    receive: ({ payload }) => checker.receive(payload.toString()),
  });
  slow.send(opcodes.text, JSON.stringify({ type: "project_join", project_id }));
  await signal(checker, (type) => type === "caught_up");
  slow.pause();

  // More than the sockets of the system and the server's own buffer hold together.
  const { last_seq } = await run(witness, project_id, "flood:8000:2000\nstream:40");
  expect(numbers(witness.events(project_id))).toEqual(upTo(last_seq));
  expect(checker.seq).toBeLessThan(last_seq);
  expect(await app.metrics.text()).toMatch(/slow_subscribers_total [1-9]/);

  slow.resume();
  await signal(checker, (type) => type === "caught_up");
  expect(checker).toMatchObject({ faults: [], seq: last_seq, events: last_seq, joins: 1 });

  const after = await run(witness, project_id, "say:and live again");
  if (checker.seq < after.last_seq) await signal(checker, () => checker.seq === after.last_seq);
  expect(checker).toMatchObject({ faults: [], live: after.last_seq - last_seq, caughtUp: 2 });
});

/** Waits for a frame of a kind, from now on. */
async function signal(checker: Continuity, wanted: (type: string) => boolean): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  checker.onFrame = (type) => {
    if (wanted(type)) resolve();
  };
  await promise;
}
