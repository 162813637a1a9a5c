/** A transcript on the disk. */
interface FileState {
  readonly path: string;
  readonly size: number;
}

const chunkBytes = 256 * 1024;
/** Of a larger transcript only so much is counted, and the rest taken to be like it. */
const countedBytes = 64 * 1024 * 1024;

const newline = 0x0a;
const quote = 0x22;
const backslash = 0x5c;
const openers: ReadonlySet<number> = new Set([0x7b, 0x5b]);
const closers: ReadonlySet<number> = new Set([0x7d, 0x5d]);
const colon = 0x3a;
const comma = 0x2c;
/** No longer than the names that matter. */
const capturedBytes = 10;

/** How many lines of a transcript were said by somebody: by the user, a tool, or the agent. */
export async function countMessages({ path, size }: FileState): Promise<number> {
  const counter = new MessageCounter();
  const end = Math.min(size, countedBytes);
  for (let at = 0; at < end; at += chunkBytes) {
    const chunk = Bun.file(path).slice(at, Math.min(at + chunkBytes, end));
    // One after the other: a transcript may be larger than what should be in memory.
    // oxlint-disable-next-line no-await-in-loop
    counter.push(await chunk.bytes());
  }
  return size > countedBytes ? Math.round((counter.count * size) / countedBytes) : counter.count;
}

/**
 * Counts the lines whose own `type`, not that of an object inside them, is that of a message. It
 * parses nothing and keeps nothing of a line, so that neither a line's length nor where the chunks
 * are cut matters. A damaged line spoils only itself.
 */
class MessageCounter {
  #count = 0;
  #depth = 0;
  #inString = false;
  #escaped = false;
  /** The beginning of the latest string of the line's own object. */
  #text = "";
  #isType = false;
  /** The line's type is known: what is left of it does not matter. */
  #settled = false;

  get count(): number {
    return this.#count;
  }

  push(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length; at += 1) {
      if (this.#settled) {
        at = chunk.indexOf(newline, at);
        if (at === -1) return;
      }
      const byte = chunk[at] ?? newline;
      if (byte === newline) this.#nextLine();
      else if (this.#inString) this.#insideString(byte);
      else this.#betweenStrings(byte);
    }
  }

  #insideString(byte: number): void {
    if (this.#escaped) this.#escaped = false;
    else if (byte === backslash) this.#escaped = true;
    else if (byte === quote) {
      this.#inString = false;
      if (this.#isType) this.#settle();
    } else if (this.#depth === 1 && this.#text.length < capturedBytes) {
      this.#text += String.fromCharCode(byte);
    }
  }

  #betweenStrings(byte: number): void {
    if (byte === quote) {
      this.#inString = true;
      if (this.#depth === 1) this.#text = "";
    } else if (openers.has(byte)) this.#depth += 1;
    else if (closers.has(byte)) this.#depth -= 1;
    else if (this.#depth === 1 && byte === colon) this.#isType = this.#text === "type";
    else if (this.#depth === 1 && byte === comma) this.#isType = false;
  }

  #settle(): void {
    this.#settled = true;
    if (this.#text === "user" || this.#text === "assistant") this.#count += 1;
  }

  #nextLine(): void {
    this.#depth = 0;
    this.#inString = false;
    this.#escaped = false;
    this.#isType = false;
    this.#settled = false;
  }
}
