import fs from "node:fs";
import { dirname, join } from "node:path";
import { isForeign } from "./data-owner.ts";
import { LogFile } from "./log-file.ts";
import { backward, headerFrom, seek } from "./log-lines.ts";
import { type LogHeader, parseHeader } from "./log-record.ts";

const pattern = /^messages_(\d{4}-\d\d-\d\d)_(\d\d)-(\d\d)-(\d\d)(?:_(\d\d))?\.jsonl$/;

/** A place in a log. */
export interface LogPosition {
  readonly file: LogFile;
  readonly offset: number;
}

/** The files of one log, oldest first. */
export class LogFiles {
  readonly directory: string;
  readonly #files: LogFile[];
  readonly #first = new WeakMap<LogFile, LogHeader>();

  constructor(directory: string) {
    this.directory = directory;
    if (fs.mkdirSync(directory, { recursive: true, mode: 0o700 })) syncFolder(dirname(directory));
    this.#files = fs
      .readdirSync(directory)
      .filter((name) => startOf(name) !== undefined)
      .toSorted((a, b) => (stem(a) < stem(b) ? -1 : 1))
      .map((name) => join(directory, name))
      .map(found);
  }

  get all(): readonly LogFile[] {
    return this.#files;
  }

  get newest(): LogFile | undefined {
    return this.#files.at(-1);
  }

  /** The file after this one. */
  next(file: LogFile): LogFile | undefined {
    return this.#files[this.#files.indexOf(file) + 1];
  }

  /** The file before this one. */
  previous(file: LogFile): LogFile | undefined {
    return this.#files[this.#files.indexOf(file) - 1];
  }

  has(file: LogFile): boolean {
    return this.#files.includes(file);
  }

  /** Begins a file whose name sorts after all others, whatever the clock says. */
  create(at: Date): LogFile {
    const file = LogFile.create(join(this.directory, nameAfter(this.newest?.name, at)));
    this.#files.push(file);
    return file;
  }

  /** Deletes a file for good. */
  remove(file: LogFile): void {
    fs.rmSync(file.path, { force: true });
    this.#files.splice(this.#files.indexOf(file), 1);
  }

  /** The first header of a file. */
  first(file: LogFile): LogHeader | undefined {
    const header = this.#first.get(file) ?? headerFrom(file, 0)?.header;
    if (header) this.#first.set(file, header);
    return file.size > 0 ? header : undefined;
  }

  /** The last header of a file. */
  last(file: LogFile): LogHeader | undefined {
    let header: LogHeader | undefined;
    backward(file, file.size, (line) => {
      header = parseHeader(line);
      return header === undefined;
    });
    return header;
  }

  /**
   * Where the first record that `reached` holds for starts, or the end of the log. It must hold
   * for all records after one that it holds for.
   */
  locate(reached: (header: LogHeader) => boolean): LogPosition | undefined {
    let low = 0;
    let high = this.#files.length;
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      const header = this.#firstFrom(middle);
      if (!header || reached(header)) high = middle;
      else low = middle;
    }
    const file = this.#files[low];
    return file && { file, offset: seek(file, reached) };
  }

  /** The first header in or after a file: one without any must not mislead the search. */
  #firstFrom(index: number): LogHeader | undefined {
    for (const file of this.#files.slice(index)) {
      const header = this.first(file);
      if (header) return header;
    }
    return undefined;
  }
}

/** Its size is as the system says. Throws if somebody else has made it. */
function found(path: string): LogFile {
  const stats = fs.statSync(path);
  if (isForeign(stats))
    throw new Error(`Cannot read the log "${path}": it belongs to another user`);
  return new LogFile(path, stats.size);
}

/** Waits until the names in a folder are on the disk. */
export function syncFolder(path: string): void {
  const fd = fs.openSync(path, "r");
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

function nameAfter(newest: string | undefined, at: Date): string {
  const name = nameOf(at, 0);
  const last = newest === undefined ? undefined : startOf(newest);
  if (!newest || !last || stem(name) > stem(newest)) return name;
  if (last.count < 99) return nameOf(last.second, last.count + 1);
  return nameOf(new Date(last.second.getTime() + 1000), 0);
}

/** When a file was begun, as its name says; undefined for names that are not a log's. */
function startOf(name: string): { second: Date; count: number } | undefined {
  const match = pattern.exec(name);
  if (!match) return undefined;
  const [, day, hour, minute, second, count = "0"] = match;
  const time = Date.parse(`${day}T${hour}:${minute}:${second}Z`);
  return Number.isNaN(time) ? undefined : { second: new Date(time), count: Number(count) };
}

function nameOf(start: Date, count: number): string {
  const [day, time = ""] = start.toISOString().slice(0, 19).split("T");
  const suffix = count === 0 ? "" : `_${String(count).padStart(2, "0")}`;
  return `messages_${day}_${time.replaceAll(":", "-")}${suffix}.jsonl`;
}

/** Names sort by this: with the extension, what follows the seconds would be compared to a dot. */
function stem(name: string): string {
  return name.slice(0, -".jsonl".length);
}
