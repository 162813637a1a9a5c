/** Nobody has read a question that appeared less than this ago. */
const quietMs = 400;

/**
 * Keeps keys that were meant for something else from answering a question: they count once it has
 * been there for a moment in which nothing was typed.
 */
export class Guard implements Disposable {
  readonly #lifted: () => void;
  #timer: Timer | undefined;

  constructor(lifted: () => void) {
    this.#lifted = lifted;
  }

  /** Whether keys do not count yet. */
  get up(): boolean {
    return this.#timer !== undefined;
  }

  /** A question appeared, or something was typed before keys count. */
  raise(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#lifted();
    }, quietMs);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
