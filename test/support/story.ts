import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "bun:test";

/** One line of a log file, read without any code of the server's. */
export interface Logged {
  readonly seq: number;
  readonly timestamp: string;
  readonly direction: string;
  readonly message: { readonly type: string; readonly data: Readonly<Record<string, unknown>> };
}

/** A project's whole log, as it lies on the disk. */
export function readLog(dataDir: string, project_id: string): Logged[] {
  const folder = join(dataDir, "projects", project_id, "logs");
  const names = readdirSync(folder).filter((name) => name.endsWith(".jsonl"));
  return names
    .toSorted((a, b) => a.localeCompare(b))
    .flatMap((name) => readFileSync(join(folder, name), "utf8").trimEnd().split("\n"))
    .flatMap((line): Logged[] => (line ? [JSON.parse(line)] : []));
}

/** What a subscriber is sent for a record of the log. */
export function asEvent({ seq, timestamp, direction, message }: Logged): object {
  if (direction === "claude") return { type: "agent_message", seq, timestamp, data: message };
  const type = direction === "client" ? "user_message" : message.type;
  return { type, seq, timestamp, data: message.data };
}

/**
 * The model: what is true of a project after each of its records. A record that cannot follow the
 * ones before it fails the test.
 */
export class Story {
  readonly begun = new Set<string>();
  readonly cancelled = new Set<string>();
  #seq = 0;
  #timestamp = "";
  #running: unknown = null;
  #failed = false;
  readonly #queue: string[] = [];
  readonly #asked = new Set<unknown>();
  readonly #resolved = new Set<unknown>();

  constructor(records: readonly Logged[]) {
    for (const record of records) this.#tell(record);
    // Every run has ended, every request is resolved, nothing waits.
    expect({ running: this.#running, queue: this.#queue, open: this.#open() }).toEqual({
      running: null,
      queue: [],
      open: [],
    });
  }

  #open(): unknown[] {
    return [...this.#asked].filter((id) => !this.#resolved.has(id));
  }

  #tell({ seq, timestamp, direction, message }: Logged): void {
    expect(seq).toBe(this.#seq + 1);
    expect(timestamp >= this.#timestamp).toBeTrue();
    this.#seq = seq;
    this.#timestamp = timestamp;
    if (this.#failed) expect(message).toMatchObject({ type: "project_state" });
    if (direction === "claude") return;
    const { type, data } = message;
    if (type === "execute") this.#begin(String(data["execution_id"]));
    if (type === "project_state") this.#enter(data);
    if (type === "error") this.#failed = true;
    if (type === "execution_queued") this.#enqueue(data);
    if (type === "execution_cancelled") this.#cancel(String(data["execution_id"]));
    if (type === "permission_request") this.#ask(data);
    if (type === "permission_resolved") this.#resolve(data["permission_id"]);
  }

  #begin(id: string): void {
    expect(this.#running).toBeNull();
    expect(this.begun).not.toContain(id);
    // First come first served; what never waited goes first.
    if (this.#queue.includes(id)) expect(this.#queue.shift()).toBe(id);
    this.begun.add(id);
    this.#running = id;
  }

  #enter({
    state,
    execution,
    last_seq,
    queued,
    pending_permissions,
  }: Logged["message"]["data"]): void {
    expect({ last_seq, queued, pending_permissions }).toEqual({
      last_seq: this.#seq,
      queued: this.#queue.length,
      pending_permissions: this.#open().length,
    });
    if (this.#failed) expect(state).toBe("ERROR");
    this.#failed = false;
    if (state !== "EXECUTING") {
      expect({ execution, pending_permissions }).toEqual({
        execution: null,
        pending_permissions: 0,
      });
      this.#running = null;
      return;
    }
    // A run without a prompt is one that the agent has begun by itself.
    const { id } = Object(execution);
    this.#running ??= id;
    expect(id).toBe(this.#running);
  }

  #enqueue({ execution_id, position }: Logged["message"]["data"]): void {
    const id = String(execution_id);
    expect([...this.begun, ...this.cancelled, ...this.#queue]).not.toContain(id);
    this.#queue.push(id);
    expect(position).toBe(this.#queue.length);
  }

  #cancel(id: string): void {
    expect(this.#queue).toContain(id);
    this.#queue.splice(this.#queue.indexOf(id), 1);
    this.cancelled.add(id);
  }

  #ask({ permission_id, execution_id }: Logged["message"]["data"]): void {
    expect(execution_id).toBe(this.#running);
    expect(this.#asked).not.toContain(permission_id);
    this.#asked.add(permission_id);
  }

  #resolve(permission_id: unknown): void {
    expect(this.#open()).toContain(permission_id);
    this.#resolved.add(permission_id);
  }
}
