const newline = 0x0a;
const carriageReturn = 0x0d;
/** A larger buffer is given back at the first line that does not need it. */
const keptBytes = 64 * 1024;
const nothing = Buffer.alloc(0);

/** One line without its ending; `text` is null when it was longer than the limit. */
export interface Line {
  readonly text: string | null;
  readonly bytes: number;
}

/**
 * Cuts a stream of UTF-8 bytes into lines at LF and nowhere else. Work is linear in the bytes
 * however they are chunked, and memory stays within `maxBytes`: what exceeds it is only counted.
 */
export class LineSplitter {
  readonly #maxBytes: number;
  /** The beginning of a line whose end has not come yet, as far as a line may go. */
  #carry: Buffer = nothing;
  #carried = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** The lines that end within this chunk. */
  push(chunk: Uint8Array): Line[] {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    const lines: Line[] = [];
    let start = 0;
    for (let end = bytes.indexOf(newline); end !== -1; end = bytes.indexOf(newline, start)) {
      lines.push(this.#complete(bytes, start, end));
      start = end + 1;
    }
    if (start < bytes.length) this.#keep(bytes.subarray(start));
    return lines;
  }

  /** What came after the last line ending, if anything. */
  end(): Line | undefined {
    return this.#carried === 0 ? undefined : this.#complete(nothing, 0, 0);
  }

  #complete(bytes: Buffer, start: number, end: number): Line {
    if (this.#carried > 0) this.#keep(bytes.subarray(start, end));
    const line =
      this.#carried > 0 ? this.#line(this.#carry, 0, this.#carried) : this.#line(bytes, start, end);
    this.#carried = 0;
    // Not at once: a stream of long lines would leave the collector a buffer for each.
    if (this.#carry.length > keptBytes && line.bytes <= keptBytes) this.#carry = nothing;
    return line;
  }

  #line(bytes: Buffer, start: number, end: number): Line {
    const length = end - start;
    if (length > this.#maxBytes) return { text: null, bytes: length };
    const hasReturn = length > 0 && bytes[end - 1] === carriageReturn;
    return { text: bytes.toString("utf8", start, hasReturn ? end - 1 : end), bytes: length };
  }

  #keep(part: Buffer): void {
    const before = this.#carried;
    this.#carried += part.length;
    if (this.#carried > this.#maxBytes) return;
    if (this.#carried > this.#carry.length) {
      const room = Math.max(this.#carried, Math.min(this.#carry.length * 2, this.#maxBytes));
      const grown = Buffer.allocUnsafeSlow(room);
      this.#carry.copy(grown, 0, 0, before);
      this.#carry = grown;
    }
    part.copy(this.#carry, before);
  }
}
