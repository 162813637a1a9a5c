import type { Direction, LogEntry, LogRecord } from "../core/ports.ts";

/** The start of a record's line: enough to find one's way in a file. */
export interface LogHeader {
  readonly seq: number;
  readonly timestamp: string;
}

/** No header is longer than this. */
export const headerBytes = 128;

// The order of the fields never changes, so that a message of many megabytes is found by slicing.
const header =
  /^\{"seq":(\d{1,16}),"timestamp":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)","direction":"(client|claude|server)","message":/;

/** The record that an entry becomes. */
export function makeRecord(seq: number, timestamp: string, entry: LogEntry): LogRecord {
  const { direction, message } = entry;
  // Part of the entry would become a line of its own, and both would be unreadable.
  if (message.includes("\n"))
    throw new TypeError("Cannot log a message: it has more than one line");
  const line = `{"seq":${seq},"timestamp":"${timestamp}","direction":"${direction}","message":${message}}`;
  return { seq, timestamp, direction, message, line };
}

/** Reads the header of a line of which `bytes` holds at least the first 128, or all. */
export function parseHeader(bytes: Buffer): LogHeader | undefined {
  const match = header.exec(bytes.toString("latin1", 0, Math.min(bytes.length, headerBytes)));
  if (!match?.[1] || !match[2]) return undefined;
  return { seq: Number(match[1]), timestamp: match[2] };
}

/**
 * Reads a line, given with its newline. Its layout must be whole and without the NULs that a
 * machine's crash leaves in place of unwritten blocks; the JSON of the message is not looked at.
 * `text` is what the bytes say, if that is known.
 */
export function parseRecord(bytes: Buffer, text?: string): LogRecord | undefined {
  const end = bytes.length - 1;
  if (bytes[end] !== 0x0a || bytes[end - 1] !== 0x7d || bytes.includes(0)) return undefined;
  const line = text?.slice(0, -1) ?? bytes.toString("utf8", 0, end);
  const match = header.exec(line);
  if (!match?.[1] || !match[2] || !isDirection(match[3])) return undefined;
  const message = line.slice(match[0].length, -1);
  // The brace that ends the line was the message's own: the line is cut short.
  if (message.startsWith("{") && !message.endsWith("}")) return undefined;
  return { seq: Number(match[1]), timestamp: match[2], direction: match[3], message, line };
}

function isDirection(text: string | undefined): text is Direction {
  return text === "client" || text === "claude" || text === "server";
}
