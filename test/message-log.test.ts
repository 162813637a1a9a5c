import { afterEach, beforeEach, describe, expect, jest, mock, spyOn, test } from "bun:test";
import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { bootId } from "../src/adapters/boot-id.ts";
import { type LogOptions, openMessageLog } from "../src/adapters/message-log.ts";
import type { LogQuery, LogRecord, LogState, MessageLog, Telemetry } from "../src/core/ports.ts";

const noon = new Date("2026-05-04T12:00:00.000Z");
const day = 86_400_000;

let root: string;
let directory: string;
let opened: MessageLog[];
let counts: Map<string, number>;
let logged: string[];

beforeEach(() => {
  root = fs.mkdtempSync(join(tmpdir(), "message-log-"));
  directory = join(root, "logs");
  opened = [];
  counts = new Map();
  logged = [];
});

afterEach(async () => {
  mock.restore();
  await Promise.allSettled(opened.map((log) => log.close()));
  fs.rmSync(root, { recursive: true });
});

const telemetry: Telemetry = {
  count: (metric, labels, by = 1) => {
    const key = [metric, ...Object.values(labels)].join(" ");
    counts.set(key, (counts.get(key) ?? 0) + by);
  },
  gauge: () => {},
  observe: (metric) => counts.set(metric, (counts.get(metric) ?? 0) + 1),
  log: (_level, text) => logged.push(text),
};

function open(overrides: Partial<LogOptions> = {}) {
  const result = openMessageLog({
    directory,
    recorded: null,
    changed: () => {},
    rotation: { bytes: 1_000_000_000, count: 1_000_000, keepDays: 0 },
    telemetry,
    now: () => noon,
    ...overrides,
  });
  opened.push(result.log);
  return result;
}

const rotation = (count: number, keepDays = 0) => ({ bytes: 1_000_000_000, count, keepDays });
const message = (text: string) => JSON.stringify({ type: "assistant", text });

function say(log: MessageLog, text: string, at = noon): LogRecord {
  const [record] = log.append([{ direction: "claude", message: message(text) }], at);
  if (!record) throw new Error("Expected a record");
  return record;
}

function names(): string[] {
  return fs.readdirSync(directory).filter((name) => name.endsWith(".jsonl"));
}

function onlyFile(): string {
  const [name = ""] = names();
  return join(directory, name);
}

function readAll(log: MessageLog, after = 0, maxBytes = 1000): LogRecord[] {
  const reader = log.reader(after);
  const records: LogRecord[] = [];
  for (;;) {
    const batch = reader.next(maxBytes);
    if (batch.length === 0) return records;
    records.push(...batch);
  }
}

const seqs = (records: readonly LogRecord[]) => records.map(({ seq }) => seq);
const upTo = (last: number, first = 1) =>
  Array.from({ length: last - first + 1 }, (_, index) => first + index);

describe("append", () => {
  test("writes lines that jq can read, with the message byte for byte", () => {
    const { log } = open();
    const raw = '{ "b":1.0,"a":"\\u00e9é😀\\"}" }';
    log.append([{ direction: "claude", message: raw }], noon);
    const [client] = log.append([{ direction: "client", message: '"x"' }], noon);
    const text = fs.readFileSync(onlyFile(), "utf8");
    expect(text).toBe(
      `{"seq":1,"timestamp":"2026-05-04T12:00:00.000Z","direction":"claude","message":${raw}}\n` +
        '{"seq":2,"timestamp":"2026-05-04T12:00:00.000Z","direction":"client","message":"x"}\n',
    );
    expect(readAll(log)[0]?.message).toBe(raw);
    expect(readAll(log)[1]).toEqual(client as LogRecord);
    expect(counts.get("log_bytes_total")).toBe(Buffer.byteLength(text));
  });

  test("keeps files to the user alone", () => {
    say(open().log, "secret");
    expect(fs.statSync(onlyFile()).mode & 0o777).toBe(0o600);
    expect(fs.statSync(directory).mode & 0o777).toBe(0o700);
  });

  test("never lets timestamps decrease, across a restart either", async () => {
    const { log } = open();
    say(log, "a", noon);
    expect(say(log, "b", new Date(0)).timestamp).toBe(noon.toISOString());
    await log.close();
    const again = open({ recorded: log.state() }).log;
    expect(say(again, "c", new Date(0)).timestamp).toBe(noon.toISOString());
  });

  test("round-trips a message of 16 MiB between small ones, forward and backward", () => {
    const { log } = open();
    const big = "é".repeat(8 * 1024 * 1024);
    const texts = ["a", big, "b", big, "c"];
    for (const text of texts) say(log, text);
    const expected = texts.map((text) => message(text));
    expect(readAll(log).map((record) => record.message)).toEqual(expected);
    const backward: string[] = [];
    log.scanBack((record) => backward.push(record.message) > 0);
    expect(backward.toReversed()).toEqual(expected);
    expect(seqs(log.page({ after_seq: 1, limit: 10 }).records)).toEqual([2]);
    expect(seqs(log.page({ after_seq: 2, limit: 10 }).records)).toEqual([3]);
  });

  test("refuses a message of two lines, which would be two broken records", () => {
    const { log } = open();
    expect(() => log.append([{ direction: "claude", message: "{\n}" }], noon)).toThrow(TypeError);
    expect(log.lastSeq()).toBe(0);
  });

  test("fails when the log is closed", async () => {
    const { log } = open();
    await log.close();
    expect(() => say(log, "late")).toThrow("Cannot append to the log: it is closed");
  });
});

describe("a failing write", () => {
  test("leaves nothing of a half-written batch and uses up no number", () => {
    const { log } = open();
    say(log, "before");
    const before = fs.readFileSync(onlyFile());
    shortWriteThenFull();
    expect(() => twice(log)).toThrow("Cannot append to the log: the disk is full");
    expect(fs.readFileSync(onlyFile())).toEqual(before);
    expect(log.lastSeq()).toBe(1);
    expect(counts.get("log_errors_total append")).toBe(1);
    expect(seqs(twice(log))).toEqual([2, 3]);
    expect(seqs(readAll(log))).toEqual([1, 2, 3]);
  });

  test("that cannot be cut back stays invisible and is cut before the next append", () => {
    const { log } = open();
    say(log, "before");
    const size = fs.statSync(onlyFile()).size;
    shortWriteThenFull();
    const truncate = spyOn(fs, "ftruncateSync").mockImplementation(() => {
      throw systemError("EIO");
    });
    expect(() => twice(log)).toThrow("the disk is full");
    expect(fs.statSync(onlyFile()).size).toBeGreaterThan(size);
    expect(seqs(readAll(log))).toEqual([1]);
    expect(seqs(log.page({ limit: 5 }).records)).toEqual([1]);
    expect(() => twice(log)).toThrow("the disk reported an error");
    truncate.mockRestore();
    expect(seqs(twice(log))).toEqual([2, 3]);
    expect(counts.get("log_errors_total read")).toBeUndefined();
    expect(seqs(readAll(log))).toEqual([1, 2, 3]);
  });

  test("continues a write that was merely short", () => {
    const { log } = open();
    const write = fs.writeSync;
    spyOn(fs, "writeSync").mockImplementationOnce((fd: number, text: unknown) =>
      write(fd, Buffer.from(String(text)).subarray(0, 101)),
    );
    const [first] = twice(log);
    expect(readAll(log)[0]).toEqual(first as LogRecord);
    expect(seqs(readAll(log))).toEqual([1, 2]);
  });

  test("of the real system ends at a whole record, and the log goes on when there is room", () => {
    const script = join(root, "fill.ts");
    fs.writeFileSync(
      script,
      `import { openMessageLog } from ${JSON.stringify(join(import.meta.dir, "../src/adapters/message-log.ts"))};
       const nothing = () => {};
       const { log } = openMessageLog({
         directory: ${JSON.stringify(directory)}, recorded: null, changed: nothing,
         rotation: { bytes: 1e9, count: 1e9, keepDays: 0 },
         telemetry: { count: nothing, gauge: nothing, observe: nothing, log: nothing },
       });
       const entry = { direction: "claude", message: JSON.stringify("x".repeat(700)) };
       try { for (;;) log.append([entry, entry], new Date(0)); }
       catch (error) {
         console.log(JSON.stringify({ code: error.code, details: error.details, state: log.state() }));
         process.exit(0);
       }`,
    );
    const limited = ["sh", "-c", 'ulimit -f 16 && exec "$0" "$1"', process.execPath, script];
    const { stdout } = Bun.spawnSync(limited);
    const { code, details, state } = JSON.parse(stdout.toString());
    expect({ code, details }).toEqual({ code: "STORAGE_ERROR", details: { reason: "EFBIG" } });
    expect(state.last_seq).toBeGreaterThan(0);
    const { log, repairs } = open({ recorded: state });
    expect(repairs).toEqual([]);
    expect(log.state().epoch).toBe(state.epoch);
    expect(say(log, "room again").seq).toBe(state.last_seq + 1);
    expect(seqs(readAll(log))).toEqual(upTo(state.last_seq + 1));
  });
});

describe("recovery", () => {
  test("cuts every prefix of the last record, keeps it, and goes on with its number", async () => {
    await written(["one", "two é"]);
    const path = onlyFile();
    const whole = fs.readFileSync(path);
    const start = whole.indexOf(10) + 1;
    for (let end = start + 1; end < whole.length; end += 1) {
      fs.rmSync(join(directory, "lost+found"), { recursive: true, force: true });
      fs.writeFileSync(path, whole.subarray(0, end));
      const { log, repairs } = open();
      const [repair] = repairs;
      expect(repair?.details).toMatchObject({ offset: start, bytes: end - start });
      const kept = fs.readFileSync(join(directory, String(repair?.details["kept"])));
      expect(kept).toEqual(whole.subarray(start, end));
      expect(say(log, "again").seq).toBe(2);
      expect(seqs(readAll(log))).toEqual([1, 2]);
      await log.close();
    }
  });

  test.each([
    ["NULs", Buffer.alloc(200_000)],
    ["a record whose blocks were never written", Buffer.from(`{"seq":3,${"\0".repeat(90)}}\n`)],
    ["garbage with line ends", Buffer.from("what\nis\n\nthis\n")],
    [
      "a line of the right layout that is not JSON",
      Buffer.from(
        '{"seq":3,"timestamp":"2026-05-04T12:00:00.000Z","direction":"claude","message":{"a":}}\n',
      ),
    ],
  ])("cuts %s off and keeps them to the user alone", async (_name, tail) => {
    const state = await written(["one", "two"]);
    fs.appendFileSync(onlyFile(), tail);
    const { log, repairs } = open({ recorded: state });
    const kept = join(directory, String(repairs[0]?.details["kept"]));
    expect(fs.readFileSync(kept)).toEqual(tail);
    expect(fs.statSync(kept).mode & 0o777).toBe(0o600);
    expect(say(log, "three").seq).toBe(3);
    expect(seqs(readAll(log))).toEqual([1, 2, 3]);
    expect(counts.get("log_errors_total read")).toBeUndefined();
  });

  test("of a file without any record consults the one before", async () => {
    const { log } = open({ rotation: rotation(2) });
    for (const text of ["a", "b", "c"]) say(log, text);
    const state = log.state();
    await log.close();
    const newest = join(directory, names().toSorted().at(-1) ?? "");
    fs.writeFileSync(newest, '{"seq":3,"timest');
    const { log: again, repairs } = open({ recorded: { ...state, last_seq: 2 } });
    expect(repairs).toHaveLength(1);
    expect(again.state().epoch).toBe(state.epoch);
    expect(say(again, "c").seq).toBe(3);
    expect(seqs(readAll(again))).toEqual([1, 2, 3]);
    expect(names()).toHaveLength(2);
  });

  test("leaves the tail alone when it cannot be kept, and never writes behind it", async () => {
    const state = await written(["one"]);
    const path = onlyFile();
    fs.appendFileSync(path, "torn");
    const torn = fs.readFileSync(path);
    const write = spyOn(fs, "writeFileSync").mockImplementation(() => {
      throw systemError("ENOSPC");
    });
    const { log, repairs } = open({ recorded: state, now: () => new Date(noon.getTime() + 5000) });
    write.mockRestore();
    expect(repairs[0]?.message).toBe("Cannot repair the log: the disk is full");
    expect(counts.get("log_errors_total repair")).toBe(1);
    expect(fs.readdirSync(join(directory, "lost+found"))).toEqual([]);
    expect(say(log, "two").seq).toBe(2);
    expect(fs.readFileSync(path)).toEqual(torn);
    expect(seqs(readAll(log))).toEqual([1, 2]);
  });

  test("reads only the end of the newest file", async () => {
    const { log } = open({ rotation: rotation(3000) });
    for (let n = 0; n < 10_000; n += 1) say(log, "x".repeat(200));
    const state = log.state();
    await log.close();
    const bytes = bytesRead(() => expect(open({ recorded: state }).log.lastSeq()).toBe(10_000));
    expect(bytes).toBeLessThan(100_000);
  });

  test("counts the records of the newest file, so that rotation by count goes on", async () => {
    const { log } = open({ rotation: rotation(3) });
    for (const text of ["a", "b", "c", "d", "e"]) say(log, text);
    await log.close();
    const { log: again } = open({ recorded: log.state(), rotation: rotation(3) });
    say(again, "f");
    expect(names()).toHaveLength(2);
    say(again, "g");
    expect(names()).toHaveLength(3);
  });
});

describe("rotation", () => {
  test("by count and by size is invisible to readers", () => {
    const { log } = open({ rotation: { bytes: 1000, count: 4, keepDays: 0 } });
    const reader = log.reader(0);
    const live: number[] = [];
    for (let n = 1; n <= 40; n += 1) {
      say(log, "x".repeat(n % 5 === 0 ? 900 : 10));
      live.push(...seqs(reader.next(10_000)));
    }
    expect(live).toEqual(upTo(40));
    expect(names().length).toBeGreaterThan(10);
    for (const after of upTo(40)) expect(seqs(readAll(log, after, 1))).toEqual(upTo(40, after + 1));
    const backward: number[] = [];
    log.scanBack(({ seq }) => backward.push(seq) < 35);
    expect(backward).toEqual(upTo(40, 6).toReversed());
    expect(log.firstSeq()).toBe(1);
  });

  test("names files in their order, also within a second and when the clock steps back", () => {
    const { log } = open({ rotation: rotation(1) });
    const back = new Date(noon.getTime() - day);
    for (const at of [noon, noon, noon, noon, noon, noon, back, back]) say(log, "x", at);
    const later = new Date(noon.getTime() + 1000);
    say(log, "y", later);
    const expected = ["", "_01", "_02", "_03", "_04", "_05", "_06", "_07"].map(
      (suffix) => `messages_2026-05-04_12-00-00${suffix}.jsonl`,
    );
    expected.push("messages_2026-05-04_12-00-01.jsonl");
    expect(names().toSorted()).toEqual(expected);
    expect(seqs(readAll(log))).toEqual(upTo(9));
  });

  test("still sorts after a hundred files in one second, and after a restart", async () => {
    const { log } = open({ rotation: rotation(1) });
    for (let n = 0; n < 102; n += 1) say(log, "x");
    await log.close();
    expect(names().toSorted().slice(-3)).toEqual([
      "messages_2026-05-04_12-00-00_99.jsonl",
      "messages_2026-05-04_12-00-01.jsonl",
      "messages_2026-05-04_12-00-01_01.jsonl",
    ]);
    const { log: again } = open({ recorded: log.state() });
    expect(seqs(readAll(again))).toEqual(upTo(102));
    expect(again.state().epoch).toBe(log.state().epoch);
  });

  test("says when its state should be saved, with the records of the append in it", async () => {
    const saved: LogState[] = [];
    const { log } = open({ changed: () => saved.push(log.state()), rotation: rotation(2) });
    await new Promise((resolve) => setImmediate(resolve));
    expect(saved).toMatchObject([{ last_seq: 0, clean: false, file: null }]);
    for (const text of ["a", "b", "c"]) say(log, text);
    await Promise.resolve();
    expect(saved.at(-1)).toEqual(log.state());
    const { dev, ino, birthtimeMs } = fs.statSync(join(directory, names().toSorted()[1] ?? ""));
    // A birth that equals the last change may be no birth at all; after one more write it is sure.
    expect(log.state().file).toMatchObject({ dev, ino });
    say(log, "d");
    expect([birthtimeMs, 0]).toContain(log.state().file?.birth_ms ?? -1);
  });

  test("deletes full files that are too old, but not the one with the newest record", async () => {
    const { log } = open({ rotation: rotation(2, 7) });
    const reader = log.reader(0);
    for (const text of ["a", "b", "c", "d"]) say(log, text, noon);
    expect(seqs(reader.next(1))).toEqual([1]);
    const soon = new Date(noon.getTime() + 6 * day);
    for (const text of ["e", "f"]) say(log, text, soon);
    expect(log.firstSeq()).toBe(1);
    say(log, "g", new Date(noon.getTime() + 8 * day));
    expect(log.firstSeq()).toBe(5);
    expect(seqs(reader.next(10_000))).toEqual([5, 6, 7]);
    await log.close();

    const later = () => new Date(noon.getTime() + 400 * day);
    const { log: again } = open({ recorded: log.state(), rotation: rotation(2, 7), now: later });
    expect(seqs(readAll(again))).toEqual([7]);
    expect(again.state().epoch).toBe(log.state().epoch);
  });

  test("keeps an old file while the newer one is empty, as a crash can leave it", async () => {
    const { log } = open({ rotation: rotation(1, 7) });
    for (const text of ["a", "b"]) say(log, text);
    await log.close();
    fs.writeFileSync(join(directory, "messages_2026-05-04_12-00-09.jsonl"), "");
    const later = new Date(noon.getTime() + 400 * day);
    const { log: again, repairs } = open({
      recorded: log.state(),
      rotation: rotation(1, 7),
      now: () => later,
    });
    expect(repairs).toEqual([]);
    expect(seqs(readAll(again))).toContain(2);
    expect(say(again, "c", later).seq).toBe(3);
    expect(seqs(readAll(again))).toEqual([3]);
  });
});

describe("sync", () => {
  test("asked after a write does not come back with a sync that began before it", async () => {
    const { log } = open();
    const syncs = holdSyncs();
    const done: string[] = [];
    say(log, "a");
    const first = log.sync().then(() => done.push("first"));
    await syncs.begun(1);
    say(log, "b");
    const second = log.sync().then(() => done.push("second"));
    const third = log.sync().then(() => done.push("third"));
    syncs.finish();
    await first;
    await syncs.begun(2);
    expect(done).toEqual(["first"]);
    syncs.finish();
    await Promise.all([second, third]);
    expect(syncs.count()).toBe(2);
  });

  test("with nothing new to write waits for the one under way, or for nothing", async () => {
    const { log } = open();
    await log.sync();
    const syncs = holdSyncs();
    say(log, "a");
    const first = log.sync();
    await syncs.begun(1);
    const second = log.sync();
    syncs.finish();
    await Promise.all([first, second]);
    await log.sync();
    expect(syncs.count()).toBe(1);
    expect(counts.get("log_sync_seconds")).toBe(1);
  });

  test("covers the old file, the new file and the directory after a rotation", async () => {
    const { log } = open({ rotation: rotation(1) });
    say(log, "a");
    await log.sync();
    const synced: string[] = [];
    const fdatasync = fs.fdatasync;
    const fsync = fs.fsync;
    replace("fdatasync", (fd, callback) => {
      synced.push(pathOf(fd));
      fdatasync(fd, callback);
    });
    replace("fsync", (fd, callback) => {
      synced.push(pathOf(fd));
      fsync(fd, callback);
    });
    say(log, "b");
    say(log, "c");
    await log.sync();
    const files = names()
      .toSorted()
      .slice(1)
      .map((name) => join(directory, name));
    expect(synced.toSorted()).toEqual([directory, ...files].map(inodeOf).toSorted());
  });

  test("never closes a file that a sync still holds", async () => {
    const { log } = open({ rotation: rotation(1) });
    const syncs = holdSyncs();
    say(log, "a");
    const first = log.sync();
    await syncs.begun(1);
    const close = spyOn(fs, "closeSync");
    say(log, "b");
    const second = log.sync();
    expect(close).not.toHaveBeenCalledWith(syncs.fd());
    const held = syncs.fd();
    syncs.finish();
    await first;
    await syncs.begun(2);
    syncs.finish();
    await second;
    expect(close).toHaveBeenCalledWith(held);
    expect(seqs(readAll(log))).toEqual([1, 2]);
  });

  test("that fails tells all who wait, and the next record goes to a fresh file", async () => {
    const { log } = open();
    say(log, "a");
    failNextSync();
    const waiting = [log.sync(), log.sync()];
    for (const outcome of await Promise.allSettled(waiting))
      expect(outcome).toMatchObject({
        status: "rejected",
        reason: { code: "STORAGE_ERROR", details: { reason: "EIO" } },
      });
    expect(counts.get("log_errors_total sync")).toBe(1);
    expect(logged).toEqual(["Cannot sync the log: the disk reported an error"]);
    expect(await failure(log.sync())).toMatchObject({ code: "STORAGE_ERROR" });
    expect(names()).toHaveLength(1);
    say(log, "b");
    expect(names()).toHaveLength(2);
    await log.sync();
    expect(seqs(readAll(log))).toEqual([1, 2]);
  });

  test("does not resolve while the names of new files are not on the disk", async () => {
    const { log } = open();
    say(log, "a");
    replace("fsync", (_fd, callback) => callback(systemError("EIO")), "once");
    expect(await failure(log.sync())).toMatchObject({ code: "STORAGE_ERROR" });
    let retried = false;
    replace("fsync", (_fd, callback) => {
      retried = true;
      callback(null);
    });
    say(log, "b");
    await log.sync();
    expect(retried).toBe(true);
  });

  test("does not believe a later sync of a file whose sync failed", async () => {
    const { log } = open();
    say(log, "a");
    const syncs = holdSyncs();
    const first = log.sync();
    await syncs.begun(1);
    say(log, "b");
    const second = log.sync();
    syncs.finish(systemError("EIO"));
    for (const outcome of await Promise.allSettled([first, second]))
      expect(outcome.status).toBe("rejected");
    expect(syncs.count()).toBe(1);
  });

  test("happens by itself after a while, and its failure harms nobody", async () => {
    jest.useFakeTimers();
    try {
      const { log } = open();
      say(log, "a");
      failNextSync();
      jest.advanceTimersByTime(200);
    } finally {
      jest.useRealTimers();
    }
    await until(() => logged.length > 0);
    expect(counts.get("log_errors_total sync")).toBe(1);
  });

  test("that fails at the end leaves the log marked as not closed in order", async () => {
    const { log } = open();
    say(log, "a");
    failNextSync();
    expect(await failure(log.close())).toMatchObject({ code: "STORAGE_ERROR" });
    expect(log.state().clean).toBe(false);
  });
});

describe("opening", () => {
  test("says why it is impossible, without the path", () => {
    fs.writeFileSync(directory, "not a directory");
    expect(() => open()).toThrow(/^Cannot open the log: [A-Z]+$/);
  });

  test("passes over files that are not the log's", () => {
    fs.mkdirSync(directory);
    for (const name of ["messages_2026-99-01_00-00-00.jsonl", "messages_new.jsonl", "zzz"])
      fs.writeFileSync(join(directory, name), "mine");
    const { log, repairs } = open();
    expect(repairs).toEqual([]);
    expect(say(log, "a").seq).toBe(1);
    expect(names()).toHaveLength(3);
    expect(seqs(readAll(log))).toEqual([1]);
  });
});

describe("epoch", () => {
  let state: LogState;

  beforeEach(async () => {
    const { log } = open({ rotation: rotation(2) });
    expect(log.state().epoch).toMatch(/^[0-9a-f]{12}$/);
    expect(log.state().clean).toBe(false);
    for (const text of ["a", "b", "c"]) say(log, text);
    await log.close();
    state = log.state();
    expect(state).toMatchObject({ last_seq: 3, clean: true, boot_id: bootId() });
  });

  test("stays after a clean stop, a crash, and a restart of the machine after a clean stop", () => {
    expect(reopened(state)).toMatchObject({ same: true, reason: undefined });
    expect(reopened({ ...state, clean: false }).same).toBe(true);
    expect(reopened({ ...state, boot_id: "another" }).same).toBe(true);
  });

  test("stays when nothing was written yet", () => {
    fs.rmSync(directory, { recursive: true });
    const empty: LogState = { ...state, last_seq: 0, file: null };
    expect(reopened(empty)).toMatchObject({ same: true, reason: undefined });
    expect(names()).toEqual([]);
  });

  test("stays when the log has more, or newer files, than was recorded", () => {
    const [oldest = ""] = names().toSorted();
    const { dev, ino, birthtimeMs } = fs.statSync(join(directory, oldest));
    const file = { name: oldest, dev, ino, birth_ms: birthtimeMs };
    const { log, same } = reopened({ ...state, last_seq: 1, file });
    expect(same).toBe(true);
    expect(log.lastSeq()).toBe(3);
  });

  test("changes when nothing was recorded", () => {
    expect(reopened(null).reason).toBe("nothing was recorded about the log");
  });

  test("changes when the machine restarted without a clean stop", () => {
    const { same, reason } = reopened({ ...state, clean: false, boot_id: "another" });
    expect(same).toBe(false);
    expect(reason).toBe("the machine restarted before the log was closed");
  });

  test("changes when the log is behind, and numbering does not go back", () => {
    const { log, same, reason } = reopened({ ...state, last_seq: 7 });
    expect(same).toBe(false);
    expect(reason).toBe("the log ends before what was recorded");
    expect(say(log, "d").seq).toBe(8);
    expect(seqs(readAll(log))).toEqual([1, 2, 3, 8]);
    expect(seqs(readAll(log, 5))).toEqual([8]);
  });

  test("changes when the log is missing, and numbering does not go back", () => {
    fs.rmSync(directory, { recursive: true });
    const { log, same, reason } = reopened(state);
    expect(same).toBe(false);
    expect(reason).toBe("the log is missing");
    expect(log.firstSeq()).toBe(4);
    expect(say(log, "d").seq).toBe(4);
  });

  test("changes when the newest file is a copy, as from a backup", () => {
    const path = join(directory, names().toSorted().at(-1) ?? "");
    fs.copyFileSync(path, `${path}.copy`);
    fs.renameSync(`${path}.copy`, path);
    const { same, reason } = reopened(state);
    expect(same).toBe(false);
    expect(reason).toBe("the log file is not the one that was recorded");
  });

  test("changes when a whole record at the end was destroyed, for its number is used again", () => {
    const path = join(directory, names().toSorted().at(-1) ?? "");
    fs.writeFileSync(path, fs.readFileSync(path, "utf8").replace("assistant", 'assist"nt'));
    const { log, same, reason } = reopened({ ...state, last_seq: 2 });
    expect(same).toBe(false);
    expect(reason).toBe("records at the end of the log could not be read");
    expect(say(log, "d").seq).toBe(3);
  });
});

describe("a corrupt line in the middle", () => {
  test.each([
    ["of NULs", (line: string) => "\0".repeat(line.length)],
    [
      "with a hole of NULs in its message",
      (line: string) => line.replace("assistant", "assist\0nt"),
    ],
    ["of garbage", () => "garbage"],
    ["without its end", (line: string) => line.slice(0, -1)],
  ])("%s is skipped, counted and reported once", async (_name, spoil) => {
    const { log } = open();
    for (const text of ["a", "b", "c", "d"]) say(log, text);
    await log.close();
    const lines = fs.readFileSync(onlyFile(), "utf8").split("\n");
    lines[1] = spoil(lines[1] ?? "");
    fs.writeFileSync(onlyFile(), lines.join("\n"));
    const { log: again, repairs } = open({ recorded: log.state() });
    expect(repairs).toEqual([]);
    expect(seqs(readAll(again))).toEqual([1, 3, 4]);
    expect(counts.get("log_errors_total read")).toBe(1);
    expect(seqs(again.page({ limit: 9 }).records)).toEqual([1, 3, 4]);
    expect(seqs(readAll(again, 1, 1))).toEqual([3, 4]);
    expect(logged).toEqual(["Cannot read a line of a log: it was skipped"]);
  });

  test("is another thing than a disk that cannot be read, which is a fault", () => {
    const { log } = open();
    say(log, "a");
    spyOn(fs, "readSync").mockImplementationOnce(() => {
      throw systemError("EIO");
    });
    expect(() => log.page({ limit: 1 })).toThrow("Cannot read the log: the disk reported an error");
    expect(counts.get("log_errors_total read")).toBe(1);
  });

  test("does not take the mistakes of a visitor for those of the disk", () => {
    const { log } = open();
    say(log, "a");
    const visit = ({ seq }: LogRecord): boolean => {
      throw new RangeError(`record ${seq} of ${log.lastSeq()}`);
    };
    expect(() => log.scanBack(visit)).toThrow(RangeError);
    expect(counts.get("log_errors_total read")).toBeUndefined();
  });

  test("or a file that somebody deleted does not hide the rest", async () => {
    const { log } = open({ rotation: rotation(2) });
    for (let n = 0; n < 8; n += 1) say(log, "x");
    await log.sync();
    fs.rmSync(join(directory, names().toSorted()[1] ?? ""));
    expect(seqs(readAll(log))).toEqual([1, 2, 5, 6, 7, 8]);
    expect(seqs(readAll(log, 3))).toEqual([5, 6, 7, 8]);
    expect(seqs(log.page({ limit: 9 }).records)).toEqual([1, 2, 5, 6, 7, 8]);
  });
});

describe("page", () => {
  test("gives what its description says, for any log and any query", () => {
    const records = fc.array(
      fc.record({ size: fc.oneof(fc.nat(300), fc.nat(90_000)), ms: fc.nat(3) }),
      { minLength: 1, maxLength: 60 },
    );
    const bound = optional(fc.nat(62));
    const queries = fc.array(
      fc.record({
        after_seq: bound,
        before_seq: bound,
        since: optional(fc.integer({ min: -2, max: 90 })),
        limit: fc.integer({ min: 1, max: 20 }),
      }),
      { minLength: 1, maxLength: 20 },
    );
    const limits = fc.record({
      bytes: fc.integer({ min: 1024, max: 400_000 }),
      count: fc.integer({ min: 1, max: 40 }),
    });
    let run = 0;
    fc.assert(
      fc.property(records, queries, limits, (sizes, asked, limit) => {
        run += 1;
        const { log } = open({
          directory: join(root, `run-${run}`),
          rotation: { ...limit, keepDays: 0 },
        });
        let ms = noon.getTime();
        const all = sizes.map(({ size, ms: step }) =>
          say(log, "x".repeat(size), new Date((ms += step))),
        );
        for (const { since, ...bounds } of asked) {
          const time = since === undefined ? undefined : new Date(noon.getTime() + since);
          const query = { ...bounds, since: time?.toISOString() };
          const page = log.page(query);
          const expected = model(all, query);
          expect(seqs(page.records)).toEqual(seqs(expected.records));
          expect(page.hasMore).toBe(expected.hasMore);
        }
        const from = sizes.length >> 1;
        expect(seqs(readAll(log, from, 5000))).toEqual(upTo(sizes.length, from + 1));
      }),
      { numRuns: 60 },
    );
  });

  test("holds about 1 MiB, and one record at least", () => {
    const { log } = open();
    for (let n = 0; n < 5; n += 1) say(log, "x".repeat(400_000));
    say(log, "x".repeat(2_000_000));
    expect(log.page({ limit: 10 })).toMatchObject({ records: [{ seq: 6 }], hasMore: true });
    expect(seqs(log.page({ limit: 10, before_seq: 6 }).records)).toEqual([4, 5]);
    expect(seqs(log.page({ limit: 10, after_seq: 0 }).records)).toEqual([1, 2]);
    expect(log.page({ limit: 10, after_seq: 5 })).toMatchObject({
      records: [{ seq: 6 }],
      hasMore: false,
    });
  });

  test("of an empty log is empty", () => {
    const { log } = open();
    expect(log.page({ limit: 1 })).toMatchObject({ records: [], hasMore: false });
    expect(log.page({ limit: 1, after_seq: 0 })).toMatchObject({ records: [], hasMore: false });
  });

  test("of a large log reads about its own bytes", () => {
    const { log } = open({ rotation: rotation(10_000) });
    const entry = { direction: "claude" as const, message: message("x".repeat(200)) };
    const batch = Array.from({ length: 1000 }, () => entry);
    for (let n = 0; n < 100; n += 1) log.append(batch, new Date(noon.getTime() + n));
    const middle = new Date(noon.getTime() + 49).toISOString();
    const queries: [LogQuery, number][] = [
      [{ limit: 100 }, 100_000],
      [{ limit: 100, before_seq: 50_001 }, 50_000],
      [{ limit: 100, after_seq: 50_000 }, 50_001],
      [{ limit: 100, since: middle }, 50_001],
    ];
    for (const [query, edge] of queries) {
      const bytes = bytesRead(() => {
        const found = seqs(log.page(query).records);
        expect(found).toHaveLength(100);
        expect(found).toContain(edge);
      });
      expect(bytes).toBeLessThan(400_000);
    }
    expect(bytesRead(() => log.reader(99_990).next(1000))).toBeLessThan(400_000);
    expect(bytesRead(() => log.reader(100_000).next(1000))).toBe(0);
  });
});

function systemError(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(code), { code, errno: -1, syscall: "test" });
}

/** How many bytes of the log `task` reads. */
function bytesRead(task: () => void): number {
  const read = spyOn(fs, "readSync");
  task();
  const bytes = read.mock.results.reduce((sum, { value }) => sum + Number(value), 0);
  read.mockRestore();
  return bytes;
}

function pathOf(fd: number): string {
  const { dev, ino } = fs.fstatSync(fd);
  return `${dev}:${ino}`;
}

function inodeOf(path: string): string {
  const { dev, ino } = fs.statSync(path);
  return `${dev}:${ino}`;
}

function twice(log: MessageLog) {
  return log.append(
    [
      { direction: "client", message: message("x".repeat(200)) },
      { direction: "server", message: message("y".repeat(200)) },
    ],
    noon,
  );
}

function shortWriteThenFull(): void {
  const write = fs.writeSync;
  spyOn(fs, "writeSync")
    .mockImplementationOnce((fd: number, text: unknown) =>
      write(fd, Buffer.from(String(text)).subarray(0, 300)),
    )
    .mockImplementationOnce(() => {
      throw systemError("ENOSPC");
    });
}

async function written(texts: readonly string[]): Promise<LogState> {
  const { log } = open();
  for (const text of texts) say(log, text);
  const state = log.state();
  await log.close();
  return state;
}

function failNextSync(): void {
  replace("fdatasync", (_fd, callback) => callback(systemError("EIO")), "once");
}

/** Lets syncs begin, and end when told. */
function holdSyncs() {
  const held: { fd: number; callback: fs.NoParamCallback }[] = [];
  let count = 0;
  replace("fdatasync", (fd, callback) => {
    count += 1;
    held.push({ fd, callback });
  });
  return {
    count: () => count,
    fd: () => held[0]?.fd,
    begun: (n: number) => until(() => count >= n),
    finish: (error: Error | null = null) => held.shift()?.callback(error),
  };
}

function reopened(recorded: LogState | null) {
  const { log, repairs } = open({ recorded });
  const same = recorded !== null && log.state().epoch === recorded.epoch;
  return { log, same, reason: repairs.at(-1)?.details["reason"] };
}

function model(all: readonly LogRecord[], query: LogQuery) {
  const { after_seq: after = -1, before_seq: before = Infinity, since = "" } = query;
  const matching = all.filter(
    ({ seq, timestamp }) => seq > after && seq < before && timestamp > since,
  );
  const onward = query.after_seq !== undefined || query.since !== undefined;
  if (!onward) matching.reverse();
  const records: LogRecord[] = [];
  let bytes = 0;
  for (const record of matching) {
    bytes += Buffer.byteLength(record.line) + 1;
    if (records.length === query.limit || (records.length > 0 && bytes > 1_048_576)) break;
    records.push(record);
  }
  const hasMore = records.length < matching.length;
  return { records: onward ? records : records.toReversed(), hasMore };
}

function optional<T>(arbitrary: fc.Arbitrary<T>) {
  return fc.option(arbitrary, { nil: undefined });
}

function replace(
  name: "fdatasync" | "fsync",
  replacement: (fd: number, callback: fs.NoParamCallback) => void,
  times: "once" | "always" = "always",
): void {
  const { __promisify__ } = fs[name];
  const whole = Object.assign(replacement, { __promisify__ });
  const spy = spyOn(fs, name);
  if (times === "once") spy.mockImplementationOnce(whole);
  else spy.mockImplementation(whole);
}

function failure(promise: Promise<void>): Promise<unknown> {
  return promise.then(
    () => "it did not fail",
    (error: unknown) => error,
  );
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await Bun.sleep(1);
}
