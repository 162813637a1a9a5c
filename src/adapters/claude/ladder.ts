/** How long each step of the ladder waits before the next, in milliseconds. */
export interface LadderTiming {
  readonly interruptMs: number;
  readonly inputMs: number;
  readonly terminateMs: number;
}

/** Long enough for the CLI: it takes 20 to 50 ms for each, but with background tasks 5 s. */
export const ladderTiming: LadderTiming = { interruptMs: 2500, inputMs: 6000, terminateMs: 2000 };

/** What a ladder does to a process. */
export interface Rungs {
  /** Asks the agent to drop its turn; resolves when it has, at once when there is none. */
  readonly interrupt: () => Promise<void>;
  readonly endInput: () => void;
  /** Looks who belongs to the process, while its family can still be told. */
  readonly survey: () => Promise<void>;
  readonly signal: (name: NodeJS.Signals) => void;
  readonly exited: Promise<unknown>;
}

/**
 * Ends one process, each step firmer than the one before: interrupt, end of input, SIGTERM,
 * SIGKILL. Only the interrupt makes the CLI end its own tools, hence the order.
 */
export class Ladder {
  readonly #rungs: Rungs;
  readonly #timing: LadderTiming;
  /** Resolves when no step needs to be waited for any more. */
  readonly #hurry = Promise.withResolvers<void>();
  #state: "standing" | "climbing" | "over" = "standing";

  constructor(rungs: Rungs, timing: LadderTiming) {
    this.#rungs = rungs;
    this.#timing = timing;
    void rungs.exited.then(() => this.#finish());
  }

  /** Begins at a step, unless it was begun before: no step is ever taken back. */
  async climb(from: "interrupt" | "input"): Promise<void> {
    if (this.#state !== "standing") return;
    this.#state = "climbing";
    await this.#rungs.survey();
    if (from === "interrupt" && !this.#isOver()) {
      await this.#wait(this.#timing.interruptMs, this.#rungs.interrupt());
    }
    if (this.#isOver()) return;
    this.#rungs.endInput();
    await this.#wait(this.#timing.inputMs);
    if (this.#isOver()) return;
    await this.#rungs.survey();
    this.#rungs.signal("SIGTERM");
    // A stopped process takes the signal only when it goes on.
    this.#rungs.signal("SIGCONT");
    await this.#wait(this.#timing.terminateMs);
    if (this.#isOver()) return;
    this.#rungs.signal("SIGKILL");
  }

  /** Goes to the last step at once, wherever the climb is. */
  async force(): Promise<void> {
    if (this.#isOver()) return;
    this.#finish();
    await this.#rungs.survey();
    this.#rungs.signal("SIGKILL");
  }

  /** Changes during every wait, so it is asked anew after each. */
  #isOver(): boolean {
    return this.#state === "over";
  }

  #finish(): void {
    this.#state = "over";
    this.#hurry.resolve();
  }

  async #wait(ms: number, event: Promise<void> = this.#hurry.promise): Promise<void> {
    const time = Promise.withResolvers<void>();
    const timer = setTimeout(time.resolve, ms);
    await Promise.race([event, this.#hurry.promise, time.promise]);
    clearTimeout(timer);
  }
}
