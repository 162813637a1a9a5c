import { quantile } from "./figure.ts";
import type { Program } from "./program.ts";

const everyMs = 5;

/** Asks a server again and again how it is, and watches its memory, until it is stopped. */
export class Probe implements AsyncDisposable {
  readonly #program: Program;
  readonly #url: URL;
  readonly #delays: number[] = [];
  readonly #before: number;
  readonly #over: Promise<void>;
  #peak: number;
  #stopped = false;

  constructor({ program, url }: { program: Program; url: string }) {
    this.#program = program;
    this.#url = new URL("/health", url);
    this.#before = program.usage.rssMb;
    this.#peak = this.#before;
    this.#over = this.#ask();
  }

  /** Milliseconds that 99 of 100 answers took at most. */
  get p99(): number {
    return quantile(this.#delays, 0.99);
  }

  get slowest(): number {
    return Math.max(...this.#delays);
  }

  get growthMb(): number {
    return this.#peak - this.#before;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped = true;
    await this.#over;
  }

  async #ask(): Promise<void> {
    while (!this.#stopped) {
      const begin = performance.now();
      const answer = await fetch(this.#url);
      await answer.arrayBuffer();
      if (!answer.ok) throw new Error(`Cannot measure: health is ${answer.status}`);
      this.#delays.push(performance.now() - begin);
      this.#peak = Math.max(this.#peak, this.#program.usage.rssMb);
      await Bun.sleep(everyMs);
    }
  }
}
