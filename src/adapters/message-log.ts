import { Fault } from "../contract/errors.ts";
import type {
  LogEntry,
  LogQuery,
  LogReader,
  LogRecord,
  LogRepair,
  LogState,
  MessageLog,
  Telemetry,
} from "../core/ports.ts";
import { bootId } from "./boot-id.ts";
import { epochOf } from "./log-epoch.ts";
import type { LogFile } from "./log-file.ts";
import { LogFiles } from "./log-files.ts";
import { LogHistory } from "./log-history.ts";
import { makeRecord } from "./log-record.ts";
import { type Recovery, recoverLog } from "./log-recovery.ts";
import { LogSync } from "./log-sync.ts";
import { storageFault } from "./storage-fault.ts";

const dayMs = 86_400_000;

/** When a log begins a new file, and how long it keeps the full ones; 0 days: for ever. */
interface LogRotation {
  readonly bytes: number;
  readonly count: number;
  readonly keepDays: number;
}

export interface LogOptions {
  /** Made if it is missing. */
  readonly directory: string;
  readonly recorded: LogState | null;
  /** Called soon after opening, and after each change that `state()` should be saved for. */
  readonly changed: () => void;
  readonly rotation: LogRotation;
  readonly telemetry: Telemetry;
  readonly now?: () => Date;
}

/** Opens or creates a log, and repairs its end. Reads no more than that end. */
export function openMessageLog(options: LogOptions): {
  log: MessageLog;
  repairs: readonly LogRepair[];
} {
  const { directory, recorded, telemetry, now = () => new Date() } = options;
  try {
    const files = new LogFiles(directory);
    const recovery = recoverLog(files, now(), telemetry);
    const { epoch, reason } = epochOf(recorded, files, recovery);
    const log = new DiskLog({ options, files, recovery, epoch, now: now() });
    const message = "The history of a project begins a new epoch";
    const renewal = { message, details: { reason, epoch, previous: recorded?.epoch ?? null } };
    return {
      log,
      repairs: reason === undefined ? recovery.repairs : [...recovery.repairs, renewal],
    };
  } catch (error) {
    throw storageFault("open the log", error);
  }
}

interface Opened {
  readonly options: LogOptions;
  readonly files: LogFiles;
  readonly recovery: Recovery;
  readonly epoch: string;
  readonly now: Date;
}

class DiskLog implements MessageLog {
  readonly #options: LogOptions;
  readonly #files: LogFiles;
  readonly #history: LogHistory;
  readonly #sync: LogSync;
  readonly #epoch: string;
  /** The file that is appended to; none in a log that was never written to. */
  #current: LogFile | undefined;
  #identity: LogState["file"] = null;
  #sealed: boolean;
  /** Records in the current file. */
  #count = 0;
  #lastSeq: number;
  #lastTimestamp: string;
  #closing: Promise<void> | undefined;
  #clean = false;

  constructor({ options, files, recovery, epoch, now }: Opened) {
    this.#options = options;
    this.#files = files;
    this.#history = new LogHistory(files, options.telemetry);
    this.#sync = new LogSync(files.directory, options.telemetry);
    this.#epoch = epoch;
    this.#lastSeq = Math.max(recovery.last?.seq ?? 0, options.recorded?.last_seq ?? 0);
    this.#lastTimestamp = recovery.last?.timestamp ?? "";
    this.#sealed = recovery.sealed;
    this.#current = files.newest;
    if (this.#current) {
      this.#current.open();
      this.#identity = this.#current.identity();
      const first = files.first(this.#current);
      if (first && recovery.last) this.#count = recovery.last.seq - first.seq + 1;
      this.#expire(now);
    }
    // Not before every other log is open: saving a hundred states would delay the start.
    setImmediate(options.changed);
  }

  firstSeq(): number {
    return this.#history.firstSeq() ?? this.#lastSeq + 1;
  }

  lastSeq(): number {
    return this.#lastSeq;
  }

  state(): LogState {
    return {
      epoch: this.#epoch,
      last_seq: this.#lastSeq,
      boot_id: bootId(),
      clean: this.#clean,
      file: this.#identity,
    };
  }

  append(entries: readonly LogEntry[], at: Date): readonly LogRecord[] {
    if (this.#closing)
      throw new Fault("STORAGE_ERROR", "Cannot append to the log: it is closed", {
        reason: "closed",
      });
    if (entries.length === 0) return [];
    const now = at.toISOString();
    const timestamp = now > this.#lastTimestamp ? now : this.#lastTimestamp;
    let text = "";
    const records = entries.map((entry, index) => {
      const record = makeRecord(this.#lastSeq + 1 + index, timestamp, entry);
      text += `${record.line}\n`;
      return record;
    });
    const bytes = this.#write(text, at);
    this.#lastSeq += records.length;
    this.#lastTimestamp = timestamp;
    this.#count += records.length;
    this.#options.telemetry.count("log_bytes_total", {}, bytes);
    // Only now: until it holds a record, the new file is no reason to let an old one go.
    if (this.#count === records.length) this.#expire(at);
    return records;
  }

  sync(): Promise<void> {
    return this.#sync.sync();
  }

  reader(afterSeq: number): LogReader {
    return this.#history.reader(afterSeq, () => this.#lastSeq);
  }

  page(query: LogQuery): { records: readonly LogRecord[]; hasMore: boolean } {
    return this.#history.page(query);
  }

  scanBack(visit: (record: LogRecord) => boolean): void {
    this.#history.scanBack(visit);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#current) this.#sync.retire(this.#current);
    await this.#sync.sync();
    this.#clean = true;
  }

  #write(text: string, at: Date): number {
    try {
      this.#current?.mend();
      const file = this.#current && !this.#full(this.#current) ? this.#current : this.#rotate(at);
      const bytes = file.append(text);
      this.#sync.wrote(file);
      return bytes;
    } catch (error) {
      this.#options.telemetry.count("log_errors_total", { operation: "append" });
      throw storageFault("append to the log", error);
    }
  }

  #full(file: LogFile): boolean {
    if (this.#sealed || !this.#sync.sound(file)) return true;
    const { bytes, count } = this.#options.rotation;
    return file.size >= bytes || this.#count >= count;
  }

  #rotate(at: Date): LogFile {
    const file = this.#files.create(at);
    if (this.#current) this.#sync.retire(this.#current);
    this.#sync.namesChanged();
    this.#current = file;
    this.#identity = file.identity();
    this.#sealed = false;
    this.#count = 0;
    // Not from within an append: what is saved should know of its records.
    queueMicrotask(this.#options.changed);
    return file;
  }

  /** Deletes files that are too old, but never the newest nor the one with the newest record. */
  #expire(now: Date): void {
    const { rotation, telemetry } = this.#options;
    if (rotation.keepDays === 0) return;
    const oldest = new Date(now.getTime() - rotation.keepDays * dayMs).toISOString();
    try {
      for (const file of this.#files.all.slice(0, -1)) {
        const last = this.#files.last(file)?.timestamp ?? "";
        if (last >= oldest || last === this.#lastTimestamp) return;
        this.#files.remove(file);
        this.#sync.namesChanged();
        telemetry.log("info", "A log file was deleted: it is too old", { file: file.name });
      }
    } catch (error) {
      // What was appended is appended all the same; the next rotation tries again.
      const fault = storageFault("delete an old log file", error);
      telemetry.log("warn", fault.message, { ...fault.details });
    }
  }
}
