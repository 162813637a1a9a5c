import { setImmediate } from "node:timers/promises";

/** How long a pipe may be silent after its process has exited, before it is given up. */
const graceMs = 500;
/** More than the system and the runtime buffer of what the process itself had written. */
const lateBytes = 4 * 1024 * 1024;

interface Reader {
  readonly read: () => Promise<{ readonly value?: Uint8Array | undefined }>;
  readonly cancel: () => Promise<void>;
}

/**
 * A pipe that a child writes to. It ends at end of file or, when somebody the child left behind
 * still holds it open, once everything that the child itself wrote has been read.
 */
export class Output implements AsyncIterable<Uint8Array> {
  readonly #reader: Reader;
  #reading = false;
  #writerGone = false;
  #late = 0;
  #grace: NodeJS.Timeout | undefined;

  /** The reader is attached at once: without one the runtime buffers without limit. */
  constructor(stream: ReadableStream<Uint8Array>) {
    this.#reader = stream.getReader();
  }

  /** Reads on only when asked to, and lets everything else have its turn before it does. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, void> {
    try {
      for (;;) {
        // A flood of output would otherwise keep the loop to itself.
        // oxlint-disable-next-line no-await-in-loop
        await setImmediate();
        // oxlint-disable-next-line no-await-in-loop
        const chunk = await this.#read();
        if (!chunk) return;
        yield chunk;
        if (this.#writerGone) this.#late += chunk.length;
        if (this.#late > lateBytes) return;
      }
    } finally {
      await this.#close();
    }
  }

  /** To be called when the child has exited. */
  writerGone(): void {
    this.#writerGone = true;
    if (this.#reading) this.#startGrace();
  }

  async #read(): Promise<Uint8Array | undefined> {
    this.#reading = true;
    if (this.#writerGone) this.#startGrace();
    try {
      return (await this.#reader.read()).value;
    } catch {
      // A reset of the pipe: there is nothing more to come.
      return undefined;
    } finally {
      this.#reading = false;
      clearTimeout(this.#grace);
    }
  }

  /** Ends a pending read, and breaks the pipe for whoever still writes to it. */
  async #close(): Promise<void> {
    await this.#reader.cancel().catch(() => {
      // It had failed before, which is an end as well.
    });
  }

  #startGrace(): void {
    this.#grace = setTimeout(() => void this.#close(), graceMs);
  }
}

/** Reads everything and keeps the last bytes of it, as text. */
export async function readTail(output: Output, maxBytes: number): Promise<string> {
  let tail: Uint8Array = new Uint8Array(0);
  for await (const chunk of output) {
    const joined = chunk.length >= maxBytes ? chunk : Buffer.concat([tail, chunk]);
    tail = joined.slice(-maxBytes);
  }
  const whole = tail.findIndex((byte) => !isContinuation(byte));
  return new TextDecoder().decode(tail.subarray(Math.max(whole, 0)));
}

/** Whether a byte stands inside a UTF-8 character; a cut may have left some of those in front. */
function isContinuation(byte: number): boolean {
  return (byte & 0xc0) === 0x80;
}
