/**
 * Lines of one log file, found without reading the file whole. Blocks are doubled while they hold
 * no whole line, so that a line of n bytes costs O(n).
 */
import { isAscii } from "node:buffer";
import type { LogFile } from "./log-file.ts";
import { headerBytes, type LogHeader, parseHeader } from "./log-record.ts";

const blockBytes = 65_536;
const firstBlockBytes = 4_096;
const newline = 0x0a;

/**
 * Takes a line with its newline, which only a torn last line lacks, and where it starts; also its
 * text, where that is known without decoding it.
 */
type LineVisitor = (line: Buffer, start: number, text: string | undefined) => boolean;

/** Visits the lines from `from`, the start of one, for as long as `visit` returns true. */
export function forward(file: LogFile, from: number, visit: LineVisitor): boolean {
  let block = blockBytes;
  let position = from;
  while (position < file.size) {
    const wanted = Math.min(block, file.size - position);
    const bytes = file.bytes(position, position + wanted);
    const text = textOf(bytes);
    let start = 0;
    for (let end = bytes.indexOf(newline); end !== -1; end = bytes.indexOf(newline, start)) {
      const line = bytes.subarray(start, end + 1);
      if (!visit(line, position + start, text?.slice(start, end + 1))) return false;
      start = end + 1;
    }
    const last = bytes.length < wanted || position + wanted >= file.size;
    const rest = bytes.subarray(start);
    if (last) return rest.length === 0 || visit(rest, position + start, text?.slice(start));
    block = start === 0 ? block * 2 : blockBytes;
    position += start;
  }
  return true;
}

/** Visits the lines before `to`, the end of one, last to first, while `visit` returns true. */
export function backward(file: LogFile, to: number, visit: LineVisitor): boolean {
  // Often the last line is all that is looked for, once for each of a hundred projects.
  let block = firstBlockBytes;
  let end = to;
  while (end > 0) {
    const position = Math.max(0, end - block);
    const bytes = file.bytes(position, end);
    const text = textOf(bytes);
    let stop = bytes.length;
    while (stop > 0) {
      const before = stop > 1 ? bytes.lastIndexOf(newline, stop - 2) : -1;
      if (before === -1 && position > 0) break;
      const line = bytes.subarray(before + 1, stop);
      if (!visit(line, position + before + 1, text?.slice(before + 1, stop))) return false;
      stop = before + 1;
    }
    block = stop === bytes.length ? block * 2 : blockBytes;
    end = position + stop;
  }
  return true;
}

/** The first readable header of a line that starts at or after `from` and before `to`. */
export function headerFrom(
  file: LogFile,
  from: number,
  to = file.size,
): { header: LogHeader; start: number } | undefined {
  let start = from === 0 ? 0 : lineAfter(file, from - 1, to);
  while (start !== undefined && start < to) {
    const header = parseHeader(file.bytes(start, Math.min(start + headerBytes, file.size)));
    if (header) return { header, start };
    start = lineAfter(file, start, to);
  }
  return undefined;
}

/**
 * The start of the first line that `reached` holds for, or the end of the file. It must hold for
 * all lines after one that it holds for.
 */
export function seek(file: LogFile, reached: (header: LogHeader) => boolean): number {
  let low = 0;
  let high = file.size;
  while (high - low > blockBytes) {
    const middle = low + Math.floor((high - low) / 2);
    const probe = headerFrom(file, middle, high);
    if (!probe || reached(probe.header)) high = middle;
    else low = probe.start;
  }
  let found = file.size;
  forward(file, low, (line, start) => {
    const header = parseHeader(line);
    if (!header || !reached(header)) return true;
    found = start;
    return false;
  });
  return found;
}

/** A block as text, if each byte is a character: cutting it costs far less than decoding lines. */
function textOf(bytes: Buffer): string | undefined {
  return isAscii(bytes) ? bytes.toString("latin1") : undefined;
}

function lineAfter(file: LogFile, from: number, to: number): number | undefined {
  let block = 4096;
  for (let position = from; position < to;) {
    const bytes = file.bytes(position, Math.min(position + block, to));
    const end = bytes.indexOf(newline);
    if (end !== -1) return position + end + 1;
    if (bytes.length === 0) return undefined;
    position += bytes.length;
    block = blockBytes;
  }
  return undefined;
}
