import fs from "node:fs";
import { join } from "node:path";
import type { LogRecord, LogRepair, Telemetry } from "../core/ports.ts";
import type { LogFile } from "./log-file.ts";
import { type LogFiles, syncFolder } from "./log-files.ts";
import { backward } from "./log-lines.ts";
import { parseRecord } from "./log-record.ts";
import { storageFault } from "./storage-fault.ts";

const blockBytes = 1_048_576;

/** What the end of a log was found to be. */
export interface Recovery {
  readonly last: LogRecord | undefined;
  /** Whole lines were unreadable at the end: records that a client may have seen. */
  readonly lostRecords: boolean;
  /** What could not be cut off is still there: nothing may be appended to the newest file. */
  readonly sealed: boolean;
  readonly repairs: readonly LogRepair[];
}

interface Cut {
  readonly file: LogFile;
  readonly from: number;
  readonly now: Date;
}

/**
 * Finds the last record and cuts off what follows it, after keeping a copy in `lost+found/`. Looks
 * at the end of the newest file only, unless there is no record in it at all.
 */
export function recoverLog(files: LogFiles, now: Date, telemetry: Telemetry): Recovery {
  const repairs: LogRepair[] = [];
  let lostRecords = false;
  let sealed = false;
  for (let file = files.newest; file; file = files.previous(file)) {
    const tail = findTail(file);
    lostRecords ||= tail.lostLines > 0;
    if (tail.start < file.size) {
      const details = { file: file.name, offset: tail.start, bytes: file.size - tail.start };
      try {
        const kept = cut(files.directory, { file, from: tail.start, now });
        repairs.push({
          message: "The end of a log could not be read and was cut off",
          details: { ...details, kept },
        });
      } catch (error) {
        // The bytes stay where they are, behind the end that readers know of.
        file.size = tail.start;
        sealed ||= file === files.newest;
        const { message, details: cause } = storageFault("repair the log", error);
        telemetry.count("log_errors_total", { operation: "repair" });
        repairs.push({ message, details: { ...details, ...cause } });
      }
    }
    if (file !== files.newest) file.close();
    if (tail.last) return { last: tail.last, lostRecords, sealed, repairs };
  }
  return { last: undefined, lostRecords, sealed, repairs };
}

function findTail(file: LogFile): { last?: LogRecord; start: number; lostLines: number } {
  let last: LogRecord | undefined;
  let start = 0;
  let lostLines = 0;
  backward(file, file.size, (line, at) => {
    const record = parseRecord(line);
    if (record && isJson(record.message)) {
      last = record;
      start = at + line.length;
      return false;
    }
    if (line.at(-1) === 0x0a) lostLines += 1;
    return true;
  });
  return last ? { last, start, lostLines } : { start: 0, lostLines };
}

/** Moves the end of a file to `lost+found/`; it is on the disk there before it is cut off here. */
function cut(directory: string, { file, from, now }: Cut): string {
  const shelter = join(directory, "lost+found");
  if (fs.mkdirSync(shelter, { recursive: true, mode: 0o700 })) syncFolder(directory);
  const name = `${file.name}.${from}.${now.toISOString().replaceAll(":", "-")}`;
  copyEnd(file, from, join(shelter, name));
  syncFolder(shelter);
  const fd = file.open();
  file.cut(from);
  fs.fsyncSync(fd);
  return join("lost+found", name);
}

function copyEnd(file: LogFile, from: number, path: string): void {
  const copy = fs.openSync(path, "wx", 0o600);
  try {
    for (let at = from; at < file.size; at += blockBytes)
      fs.writeFileSync(copy, file.bytes(at, Math.min(at + blockBytes, file.size)));
    fs.fsyncSync(copy);
  } catch (error) {
    // Half a copy, made anew at every start, would only fill a disk that is full already.
    fs.rmSync(path);
    throw error;
  } finally {
    fs.closeSync(copy);
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}
