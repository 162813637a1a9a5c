import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openMessageLog } from "../src/adapters/message-log.ts";
import type { Resolution } from "../src/contract/messages.ts";
import { event } from "../src/core/feed.ts";
import type { LogEntry, MessageLog, ProjectMetadata } from "../src/core/ports.ts";
import { restore } from "../src/core/restore.ts";

const [session, other] = [crypto.randomUUID(), crypto.randomUUID()];
const at = "2026-01-02T03:04:05.678Z";
const usage = { cost_usd: 0, input_tokens: 0, output_tokens: 0, runs: 0, duration_ms: 0 };
const remembered = { rules: ["Bash(make)"], directories: ["/usr/share"] };

/** What was on the disk when the server was killed: it may be older than the log. */
const cached: ProjectMetadata = {
  version: 1,
  id: crypto.randomUUID(),
  directory: null,
  path: "/home/me/app",
  created_at: at,
  trusted: null,
  session_proven: true,
  permission_mode: null,
  model: null,
  fork: true,
  remembered,
  open_permissions: [],
  queued: 0,
  paused: false,
  state: "IDLE",
  session_id: session,
  last_active: at,
  usage,
  error: null,
  log: null,
};

let directory: string;
let log: MessageLog;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "restore-"));
  ({ log } = openMessageLog({
    directory,
    recorded: null,
    changed() {},
    rotation: { bytes: 1_000_000, count: 1_000, keepDays: 0 },
    telemetry: { count() {}, gauge() {}, observe() {}, log() {} },
  }));
});

afterEach(async () => {
  await log.close();
  rmSync(directory, { recursive: true, force: true });
});

const append = (...entries: readonly LogEntry[]) => log.append(entries, new Date(at));

const state = (changes: object): LogEntry => ({
  direction: "server",
  message: JSON.stringify({
    type: "project_state",
    data: {
      state: "IDLE",
      session_id: session,
      last_active: at,
      usage,
      error: null,
      queued: 0,
      pending_permissions: 0,
      ...changes,
    },
  }),
});

const asked = (permission_id: string): LogEntry => ({
  direction: "server",
  message: JSON.stringify({ type: "permission_request", data: { permission_id } }),
});

const resolved = (permission_id: string): LogEntry => {
  const data: Resolution = { permission_id, decision: "allow" };
  return event({ type: "permission_resolved", data });
};

const said = (session_id: string): LogEntry => ({
  direction: "claude",
  message: JSON.stringify({ type: "system", subtype: "init", session_id }),
});

test("a log without a state leaves what the metadata says", () => {
  expect(restore(cached, log)).toEqual(cached);
});

test("a session that was left is not taken up again, nor what was allowed in it", () => {
  append(state({ session_id: null }));
  expect(restore(cached, log)).toMatchObject({
    session_id: null,
    session_proven: false,
    fork: false,
    remembered: { rules: [], directories: [] },
  });
});

test("a session that the agent named since is the project's, and not yet proven", () => {
  append(state({ state: "EXECUTING" }), said(other));
  expect(restore(cached, log)).toMatchObject({
    state: "EXECUTING",
    session_id: other,
    session_proven: false,
    fork: false,
    remembered: { rules: [], directories: [] },
  });
});

test("the session that the metadata knows keeps what was allowed in it", () => {
  append(state({ state: "EXECUTING" }), said(session));
  expect(restore(cached, log)).toMatchObject({ session_proven: true, remembered });
});

test("requests are open that nobody resolved, oldest first", () => {
  append(asked("early"), state({ state: "EXECUTING", pending_permissions: 1 }));
  append(asked("a"), asked("b"), resolved("a"), asked("c"));
  const known = { ...cached, open_permissions: ["early"] };
  expect(restore(known, log).open_permissions).toEqual(["early", "b", "c"]);
  append(resolved("early"));
  expect(restore(known, log).open_permissions).toEqual(["b", "c"]);
});

test("requests that the metadata still names are settled when the log says that none is open", () => {
  append(asked("early"), resolved("early"), state({ pending_permissions: 0 }));
  expect(restore({ ...cached, open_permissions: ["early"] }, log).open_permissions).toEqual([]);
});

test("prompts that wait are looked for when the log tells of any, whatever the metadata says", () => {
  append(state({ queued: 2 }));
  expect(restore(cached, log).queued).toBe(2);
  append({ direction: "server", message: '{"type":"execution_queued","data":{}}' });
  expect(restore(cached, log).queued).toBe(3);
  append(state({ queued: 0 }));
  expect(restore({ ...cached, queued: 3 }, log).queued).toBe(0);
});
