import type { Clock } from "../../src/core/ports.ts";

/** Time that passes when told to. */
export class ManualClock implements Clock {
  #elapsed = 0;
  readonly #start: number;
  #tasks: { at: number; task: () => void }[] = [];

  constructor(start = "2026-01-01T00:00:00.000Z") {
    this.#start = Date.parse(start);
  }

  readonly now = (): Date => new Date(this.#start + this.#elapsed);
  readonly monotonic = (): number => this.#elapsed;
  readonly soon = (task: () => void): void => queueMicrotask(task);
  readonly after = (ms: number, task: () => void): Disposable => {
    const entry = { at: this.#elapsed + ms, task };
    this.#tasks.push(entry);
    return {
      [Symbol.dispose]: () => void (this.#tasks = this.#tasks.filter((other) => other !== entry)),
    };
  };

  /** Lets time pass, and does what was due in it. */
  pass(ms: number): void {
    this.#elapsed += ms;
    const due = this.#tasks.filter(({ at }) => at <= this.#elapsed);
    this.#tasks = this.#tasks.filter(({ at }) => at > this.#elapsed);
    for (const { task } of due) task();
  }
}
