import { afterEach, beforeEach, expect, test } from "bun:test";
import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AuditLog } from "../src/access/audit.ts";
import { ManualClock } from "./support/manual-clock.ts";

let dataDir: string;
let clock: ManualClock;
let logged: unknown[][];
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "audit-"));
  clock = new ManualClock("2026-02-03T04:05:06.789Z");
  logged = [];
});
afterEach(() => rmSync(dataDir, { recursive: true, force: true }));

const open = (maxBytes = 100_000) =>
  new AuditLog({ dataDir, maxBytes, clock, log: (...line) => void logged.push(line) });
const linesOf = (name: string) =>
  readFileSync(join(dataDir, name), "utf8").split("\n").slice(0, -1);

test("A line is one JSON object, and in the server's log too", () => {
  using audit = open();
  audit.record("login", { device: "d1", address: "192.0.2.7" });
  audit.record("stop");
  expect(linesOf("audit.jsonl").map((line) => JSON.parse(line))).toEqual([
    { timestamp: "2026-02-03T04:05:06.789Z", event: "login", device: "d1", address: "192.0.2.7" },
    { timestamp: "2026-02-03T04:05:06.789Z", event: "stop" },
  ]);
  expect(logged).toEqual([
    ["info", "audit: login", { device: "d1", address: "192.0.2.7" }],
    ["info", "audit: stop", {}],
  ]);
  expect(statSync(join(dataDir, "audit.jsonl")).mode & 0o777).toBe(0o600);
});

test("A value cannot forge a line, nor the event, nor hide text", () => {
  using audit = open();
  const name = 'x"}\n{"event":"login"}\r\u0000\u009b\u202e\u2028\ufeff\ud800';
  audit.record("refusal", { name, event: "login", timestamp: "1970-01-01" });
  const [line = "", ...more] = linesOf("audit.jsonl");
  expect(more).toEqual([]);
  expect(line).toMatch(/^[\u0020-\u007e]+$/);
  expect(JSON.parse(line)).toEqual({
    timestamp: "2026-02-03T04:05:06.789Z",
    event: "refusal",
    name,
  });
});

test("A full file is put aside under the time, and nothing is lost", () => {
  const before = open(200);
  for (let count = 0; count < 6; count += 1)
    before.record("login", { count, filler: "x".repeat(60) });
  before[Symbol.dispose]();
  clock.pass(61_000);
  using audit = open(200);
  for (let count = 6; count < 10; count += 1)
    audit.record("login", { count, filler: "x".repeat(60) });
  expect(readdirSync(dataDir).toSorted()).toContain("audit.jsonl");
  const aside = readdirSync(dataDir).filter((name) => name !== "audit.jsonl");
  expect(aside).toContain("audit_2026-02-03_04-05-06.jsonl");
  expect(aside).toContain("audit_2026-02-03_04-05-06_01.jsonl");
  expect(aside).toContain("audit_2026-02-03_04-06-07.jsonl");
  const counts = [...aside, "audit.jsonl"].flatMap((name) => {
    expect(statSync(join(dataDir, name)).mode & 0o777).toBe(0o600);
    expect(statSync(join(dataDir, name)).size).toBeLessThanOrEqual(200);
    return linesOf(name).map((line): number => JSON.parse(line).count);
  });
  expect(counts.toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test("A line that was cut short by a crash is not continued", () => {
  open().record("start");
  appendFileSync(join(dataDir, "audit.jsonl"), '{"timestamp":"20');
  using audit = open();
  audit.record("login");
  audit.record("stop");
  const lines = linesOf("audit.jsonl");
  expect(lines).toHaveLength(4);
  expect(lines.slice(2).map((line): string => JSON.parse(line).event)).toEqual(["login", "stop"]);
});

test("A disk that cannot be written to stops nobody, and the server's log says so", () => {
  const audit = open(1);
  audit.record("start");
  rmSync(dataDir, { recursive: true });
  audit.record("login", { device: "d1" });
  expect(logged.map(([level, text]) => [level, text])).toEqual([
    ["info", "audit: start"],
    ["info", "audit: login"],
    ["error", "cannot write to the audit log"],
  ]);
  audit[Symbol.dispose]();
});
