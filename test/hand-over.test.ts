import { expect, setDefaultTimeout, test } from "bun:test";
import { openMessageLog } from "../src/adapters/message-log.ts";
import { systemClock as clock } from "../src/adapters/clock.ts";
import { Feed } from "../src/core/feed.ts";
import type { Outlet, Publisher, Telemetry } from "../src/core/ports.ts";
import { Subscription } from "../src/core/subscription.ts";
import { scratch, testApp } from "./support/app.ts";
import { Continuity } from "./support/continuity.ts";
import { opcodes, RawSocket } from "./support/raw-socket.ts";

setDefaultTimeout(300_000);

const joins = 10_000;
const clients = 8;

test(`${joins} joins at random places while the agent writes: no gap, no repeat`, async () => {
  await using app = await testApp({ PA_LIMITS_MESSAGE_RATE: "1000000" });
  const owner = await app.client();
  const project_id = await owner.create(await app.directory());
  const data = { prompt: "flood:100000000:100:1" };
  await owner.expect("project_state", "execute", { project_id, data });
  await owner.find(({ seq }) => seq === 100, "the flood");
  await owner.expect("project_left", "project_leave", { project_id });

  const checkers = await Promise.all(
    Array.from({ length: clients }, () => joinAtRandom(app.url, project_id, joins / clients)),
  );
  const killed = await owner.expect("project_state", "agent_kill", {
    project_id,
    data: { force: true },
  });
  expect(killed.data.state).toBe("IDLE");

  expect(checkers.flatMap(({ faults }) => faults)).toEqual([]);
  expect(sum(checkers.map((checker) => checker.joins))).toBe(joins);
  expect(sum(checkers.map((checker) => checker.caughtUp))).toBe(joins);
  // Else nothing would have been handed over: a join must have live events behind its replay.
  expect(sum(checkers.map((checker) => checker.handedOver))).toBeGreaterThan(joins / 4);
});

test("the switch from replay to live loses nothing, and with an await in it the checker sees the gap", async () => {
  await using stack = new AsyncDisposableStack();
  const directory = await scratch(stack);
  expect(await handOver(`${directory}/right`, (subscribe) => subscribe())).toEqual([]);
  const faults = await handOver(`${directory}/wrong`, async (subscribe) => {
    await Promise.resolve();
    subscribe();
  });
  expect(faults.length).toBeGreaterThan(0);
  expect(faults[0]).toMatch(/^event \d+ came after \d+$/);
});

/** Joins again and again, each time when the join before has caught up and a few more have come. */
async function joinAtRandom(url: URL, project_id: string, times: number): Promise<Continuity> {
  const checker = new Continuity(project_id);
  const done = Promise.withResolvers<void>();
  using socket = await RawSocket.open(url, {
    receive: ({ opcode, payload }) => {
      if (opcode === opcodes.text) checker.receive(payload.toString());
    },
  });
  let waiting = false;
  const join = () => {
    // Mostly near the end, where the hand-over is; now and then far from it.
    const reach = Math.min(checker.seq, Math.random() < 0.01 ? 2_000 : 100);
    const after_seq = checker.seq - Math.floor(Math.random() * reach);
    const message = { type: "project_join", project_id, data: { after_seq, deltas: false } };
    // Some leave at once; the others stay until they have seen something live.
    waiting = false;
    socket.send(opcodes.text, JSON.stringify(message));
  };
  checker.onFrame = (type) => {
    if (type === "caught_up") waiting = true;
    const stays = Math.random() < 0.5;
    if (!waiting || (stays && checker.live < 1)) return;
    if (checker.joins < times) join();
    else done.resolve();
  };
  join();
  await done.promise;
  return checker;
}

/**
 * Drives the real subscription, whose outlet enters a topic in the given way, while events are
 * emitted in every turn of the microtask queue.
 */
async function handOver(
  directory: string,
  enter: (subscribe: () => void) => void | Promise<void>,
): Promise<string[]> {
  const { log, repairs } = openMessageLog({
    directory,
    recorded: null,
    changed: () => undefined,
    rotation: { bytes: 1_000_000, count: 1_000, keepDays: 0 },
    telemetry,
  });
  const subscribers = new Map<string, Set<(text: string) => void>>();
  const publisher: Publisher = {
    publish: (topic, _type, text) => {
      for (const receive of subscribers.get(topic) ?? []) receive(text);
    },
  };
  const feed = new Feed({ projectId: "p", log, repairs, publisher, clock });
  const emit = () => feed.emit({ direction: "claude", message: '{"type":"assistant"}' });
  for (let count = 0; count < 200; count += 1) emit();
  const faults: string[] = [];
  for (let round = 0; round < 100; round += 1) {
    const from = Math.floor(Math.random() * feed.lastSeq);
    const checker = new Continuity("p", from);
    const outlet: Outlet = {
      send: (_type, text) => checker.receive(text),
      buffered: () => 0,
      open: () => true,
      subscribe: (topic) => void enter(() => subscribers.set(topic, new Set([checker.receive]))),
      unsubscribe: (topic) => void subscribers.get(topic)?.delete(checker.receive),
    };
    const subscription = new Subscription(feed, outlet, { from, deltas: false, clock, telemetry });
    queueMicrotask(() => subscription.pump());
    for (let turn = 0; turn < 10; turn += 1) {
      emit();
      await Promise.resolve();
    }
    await new Promise<void>((resolve) => clock.soon(resolve));
    emit();
    subscription.stop();
    faults.push(...checker.faults);
  }
  await feed.close();
  return faults;
}

const telemetry: Telemetry = {
  count: () => undefined,
  gauge: () => undefined,
  observe: () => undefined,
  log: () => undefined,
};

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
