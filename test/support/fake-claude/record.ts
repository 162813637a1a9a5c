import { appendFileSync } from "node:fs";

/** A JSON object whose fields are not known yet. */
export type Fields = Readonly<Record<string, unknown>>;

/** Narrows parsed JSON to an object. */
export function isFields(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Appends one line to the file named by FAKE_CLAUDE_LOG, for the assertions of a test. */
export function record(event: string, fields: Fields = {}): void {
  const path = process.env["FAKE_CLAUDE_LOG"];
  if (!path) return;
  appendFileSync(path, `${JSON.stringify({ event, pid: process.pid, ...fields })}\n`);
}

/** Records what a test may want to know of how this process was started. No values of variables. */
export function recordStart(argv: readonly string[]): void {
  record("start", {
    argv,
    cwd: process.cwd(),
    umask: process.umask(),
    ppid: process.ppid,
    marker: process.env["POCKET_AGENT_RUN"] ?? null,
    env: Object.keys(process.env).toSorted(),
  });
}
