import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../src/adapters/clock.ts";
import { openProjectStore } from "../src/adapters/project-store.ts";
import { Executions } from "../src/core/executions.ts";
import { event, Feed } from "../src/core/feed.ts";
import type { ExecutionsFile, QueuedPrompt, Telemetry } from "../src/core/ports.ts";

const dataDir = mkdtempSync(join(tmpdir(), "executions-"));
afterAll(() => rmSync(dataDir, { recursive: true, force: true }));

const telemetry: Telemetry = { count() {}, gauge() {}, observe() {}, log() {} };
const rotation = { bytes: 1_000_000, count: 1_000, keepDays: 0 };

function entry(): QueuedPrompt {
  const execution_id = crypto.randomUUID();
  return {
    execution_id,
    prompt: "say:hello",
    options: {},
    images: [],
    device: null,
    queued_at: "",
  };
}

/** Logs that a prompt waits, as a project does before it notes it. */
function announce(feed: Feed, { execution_id, prompt, options, device }: QueuedPrompt): void {
  const data = { execution_id, prompt, options, images: 0, device, position: 1 };
  feed.emit(event({ type: "execution_queued", data }));
}

test("a prompt that was queued after the cache was made waits once after a crash", async () => {
  const store = openProjectStore({ dataDir, rotation, telemetry });
  const projectId = crypto.randomUUID();
  const { log, repairs } = store.openLog(projectId, null, () => {});
  const publisher = { publish() {} };
  const feed = new Feed({ projectId, log, repairs, publisher, clock: systemClock });
  const made: ExecutionsFile[] = [];
  const remembering = {
    ...store,
    saveExecutions: async (_: string, file: ExecutionsFile) => void made.push(file),
  };
  const before = new Executions(feed, 0, {
    store: remembering,
    telemetry,
    clock: systemClock,
  });
  const [first, second] = [entry(), entry()];
  announce(feed, first);
  before.enqueue(first);
  const saved = before.save();
  announce(feed, second);
  before.enqueue(second);
  await saved;

  const [cache] = made;
  expect(cache?.queue).toEqual([first]);
  const after = new Executions(feed, 1, {
    store: { ...store, loadExecutions: () => cache ?? null },
    telemetry,
    clock: systemClock,
  });
  const ids = after.queue.map(({ execution_id }) => execution_id);
  expect(ids).toEqual([first.execution_id, second.execution_id]);
  await log.close();
});
