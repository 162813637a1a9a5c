import {
  closeSync,
  existsSync,
  fchmodSync,
  fstatSync,
  openSync,
  readSync,
  renameSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { plain } from "../adapters/logger.ts";
import type { Clock, Telemetry } from "../core/ports.ts";

/** What is worth a line in the audit log. */
export type AuditEvent =
  | "start"
  | "stop"
  | "login"
  | "login_failed"
  | "paired"
  | "token_issued"
  | "key_added"
  | "key_removed"
  | "device_renamed"
  | "device_revoked"
  | "push_subscribed"
  | "push_unsubscribed"
  | "project_created"
  | "project_deleted"
  | "project_trusted"
  | "execution"
  | "permission"
  | "refusal";

/**
 * Who came in and what was done, one JSON object a line, beside the server's own log. Fields hold
 * ids and lengths, never what people wrote, nor secrets. A line that cannot be written stops
 * nobody's work; the server's log has it, and says so.
 */
export class AuditLog implements Disposable {
  readonly #directory: string;
  readonly #maxBytes: number;
  readonly #clock: Clock;
  readonly #log: Telemetry["log"];
  #file: number | undefined;
  #size = 0;
  /** The file ends within a line, which the next one must not continue. */
  #torn = false;

  constructor(options: {
    readonly dataDir: string;
    readonly maxBytes: number;
    readonly clock: Clock;
    readonly log: Telemetry["log"];
  }) {
    this.#directory = options.dataDir;
    this.#maxBytes = options.maxBytes;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#file = this.#open();
  }

  record(event: AuditEvent, fields: Readonly<Record<string, unknown>> = {}): void {
    const head = { timestamp: this.#clock.now().toISOString(), event };
    this.#log("info", `audit: ${event}`, fields);
    const line = plain(JSON.stringify({ ...head, ...fields, ...head }));
    try {
      this.#append(`${this.#torn ? "\n" : ""}${line}\n`);
    } catch (cause) {
      this.#log("error", "cannot write to the audit log", { error: cause });
    }
  }

  [Symbol.dispose](): void {
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  #append(text: string): void {
    let bytes = Buffer.from(text);
    if (this.#size > 0 && this.#size + bytes.length > this.#maxBytes) this.#rotate();
    const file = (this.#file ??= this.#open());
    while (bytes.length > 0) {
      // Until the last byte is written; a full disk throws half way.
      this.#torn = true;
      const written = writeSync(file, bytes);
      this.#size += written;
      bytes = bytes.subarray(written);
    }
    this.#torn = false;
  }

  #open(): number {
    const file = openSync(this.#path, "a+", 0o600);
    fchmodSync(file, 0o600);
    const { size } = fstatSync(file);
    const last = Buffer.alloc(1);
    this.#torn = size > 0 && readSync(file, last, 0, 1, size - 1) === 1 && last[0] !== 0x0a;
    this.#size = size;
    return file;
  }

  #rotate(): void {
    renameSync(this.#path, this.#freeName());
    this[Symbol.dispose]();
  }

  get #path(): string {
    return join(this.#directory, "audit.jsonl");
  }

  /** `audit_YYYY-MM-DD_HH-MM-SS.jsonl`, with `_01`, `_02` for more in one second. */
  #freeName(): string {
    const [day, time = ""] = this.#clock.now().toISOString().slice(0, 19).split("T");
    const stem = join(this.#directory, `audit_${day}_${time.replaceAll(":", "-")}`);
    let path = `${stem}.jsonl`;
    for (let count = 1; existsSync(path); count += 1)
      path = `${stem}_${String(count).padStart(2, "0")}.jsonl`;
    return path;
  }
}
