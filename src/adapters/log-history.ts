import type { LogQuery, LogReader, LogRecord, Telemetry } from "../core/ports.ts";
import type { LogFile } from "./log-file.ts";
import type { LogFiles, LogPosition } from "./log-files.ts";
import { backward, forward } from "./log-lines.ts";
import { type LogHeader, parseRecord } from "./log-record.ts";
import { storageFault } from "./storage-fault.ts";

const pageBytes = 1_048_576;

/** A record, the bytes of its line, and where the next line starts. */
interface Found {
  readonly record: LogRecord;
  readonly bytes: number;
  readonly end: LogPosition;
}

type Visitor = (found: Found) => boolean;

/** Reads the files of a log. Unreadable lines are skipped and counted, never fatal. */
export class LogHistory {
  readonly #files: LogFiles;
  readonly #telemetry: Telemetry;
  readonly #reported = new WeakSet<LogFile>();

  constructor(files: LogFiles, telemetry: Telemetry) {
    this.#files = files;
    this.#telemetry = telemetry;
  }

  firstSeq(): number | undefined {
    return this.#reading(() => {
      for (const file of this.#files.all) {
        const header = this.#files.first(file);
        if (header) return header.seq;
      }
      return undefined;
    });
  }

  page(query: LogQuery): { records: readonly LogRecord[]; hasMore: boolean } {
    const page = new Page(query.limit);
    const onward = query.after_seq !== undefined || query.since !== undefined;
    this.#reading(() => (onward ? this.#oldest(query, page) : this.#newest(query, page)));
    if (!onward) page.records.reverse();
    return page;
  }

  scanBack(visit: (record: LogRecord) => boolean): void {
    this.#reading(() => this.#walkBack(this.#end(), ({ record }) => visit(record)));
  }

  /** `lastSeq` says how far the log goes, which spares a look at the disk when there is nothing. */
  reader(afterSeq: number, lastSeq: () => number): LogReader {
    let after = afterSeq;
    let position: LogPosition | undefined;
    const next = (maxBytes: number): LogRecord[] => {
      const records: LogRecord[] = [];
      if (after >= lastSeq()) return records;
      if (!position || !this.#files.has(position.file))
        position = this.#files.locate(({ seq }) => seq > after);
      let room = maxBytes;
      this.#walk(position, ({ record, bytes, end }) => {
        if (records.length > 0 && bytes > room) return false;
        position = end;
        if (record.seq <= after) return true;
        records.push(record);
        after = record.seq;
        room -= bytes;
        return room > 0;
      });
      return records;
    };
    return { next: (maxBytes) => this.#reading(() => next(maxBytes)) };
  }

  #oldest(query: LogQuery, page: Page): void {
    const { after_seq: after = 0, before_seq: before = Infinity } = query;
    const since = query.since === undefined ? -Infinity : Date.parse(query.since);
    const reached = ({ seq, timestamp }: LogHeader) => seq > after && Date.parse(timestamp) > since;
    this.#walk(this.#files.locate(reached), (found) => {
      if (!reached(found.record)) return true;
      return found.record.seq < before && page.add(found);
    });
  }

  #newest(query: LogQuery, page: Page): void {
    const before = query.before_seq;
    const end = before === undefined ? this.#end() : this.#files.locate(({ seq }) => seq >= before);
    this.#walkBack(end, (found) => page.add(found));
  }

  #end(): LogPosition | undefined {
    const file = this.#files.newest;
    return file && { file, offset: file.size };
  }

  #walk(from: LogPosition | undefined, visit: Visitor): void {
    let at = from;
    while (at) {
      const { file, offset } = at;
      const wanted = forward(file, offset, (line, start, text) => {
        const found = this.#parse(file, { line, text }, start);
        return !found || visit(found);
      });
      const later = this.#files.next(file);
      at = wanted && later ? { file: later, offset: 0 } : undefined;
    }
  }

  #walkBack(from: LogPosition | undefined, visit: Visitor): void {
    let at = from;
    while (at) {
      const { file, offset } = at;
      const wanted = backward(file, offset, (line, start, text) => {
        const found = this.#parse(file, { line, text }, start);
        return !found || visit(found);
      });
      const earlier = this.#files.previous(file);
      at = wanted && earlier ? { file: earlier, offset: earlier.size } : undefined;
    }
  }

  #parse(
    file: LogFile,
    { line, text }: { line: Buffer; text: string | undefined },
    start: number,
  ): Found | undefined {
    const record = parseRecord(line, text);
    const bytes = line.length;
    if (record) return { record, bytes, end: { file, offset: start + bytes } };
    this.#telemetry.count("log_errors_total", { operation: "read" });
    if (this.#reported.has(file)) return undefined;
    this.#reported.add(file);
    const fields = { file: file.name, offset: start, bytes };
    this.#telemetry.log("warn", "Cannot read a line of a log: it was skipped", fields);
    return undefined;
  }

  #reading<T>(read: () => T): T {
    try {
      return read();
    } catch (error) {
      const fault = storageFault("read the log", error);
      this.#telemetry.count("log_errors_total", { operation: "read" });
      throw fault;
    }
  }
}

class Page {
  readonly records: LogRecord[] = [];
  hasMore = false;
  readonly #limit: number;
  #room = pageBytes;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Whether there was room; if not, there is more. */
  add({ record, bytes }: Found): boolean {
    const full = this.records.length >= this.#limit || this.#room < bytes;
    this.hasMore = full && this.records.length > 0;
    if (this.hasMore) return false;
    this.records.push(record);
    this.#room -= bytes;
    return true;
  }
}
