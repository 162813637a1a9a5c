import { Fault } from "../contract/errors.ts";
import type { ProjectState } from "../contract/messages.ts";
import type { Clock } from "./ports.ts";

/** Why a run was asked to end before the agent ended it. */
export type Cause = "kill" | "silence" | "total" | "shutdown";

/** How a run ended, as `executions_total` counts it. */
export type Outcome = "success" | "failed" | "timeout" | "killed" | "interrupted";

/** Milliseconds without output, and in all; 0 is without limit. */
interface Limits {
  readonly silenceMs: number;
  readonly totalMs: number;
}

/** One prompt from its acceptance to its end. The first cause to end it wins. */
export class Run {
  readonly id: string;
  readonly startedAt: Date;
  readonly #limits: Limits;
  readonly #clock: Clock;
  readonly #begin: number;
  readonly #stopped = Promise.withResolvers<Cause>();
  readonly #settled = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<ProjectState>();
  readonly #timers = new DisposableStack();
  #lastOutput: number;
  #cause: Cause | undefined;

  constructor(options: { id: string; startedAt: Date; limits: Limits }, clock: Clock) {
    const { limits } = options;
    this.id = options.id;
    this.startedAt = options.startedAt;
    this.#limits = limits;
    this.#clock = clock;
    this.#begin = clock.monotonic();
    this.#lastOutput = this.#begin;
    if (limits.totalMs > 0) this.#timers.use(clock.after(limits.totalMs, () => this.stop("total")));
    if (limits.silenceMs > 0) this.#watch(limits.silenceMs, limits.silenceMs);
    // Whoever waits for the end is told why it failed; without a waiter it is no unhandled error.
    this.#ended.promise.catch(() => undefined);
  }

  get cause(): Cause | undefined {
    return this.#cause;
  }

  /** Whether its end is logged, if perhaps not yet on the disk. */
  get over(): boolean {
    return this.#timers.disposed;
  }

  /** Resolves when it is over. */
  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  /** What the person reads when the run was stopped; undefined where that is no error. */
  get fault(): Fault | undefined {
    const cause = this.#cause;
    if (cause === "silence")
      return new Fault(
        "EXECUTION_TIMEOUT",
        `Cannot finish the run: the agent printed nothing for ${seconds(this.#limits.silenceMs)} and was stopped`,
      );
    if (cause === "total")
      return new Fault(
        "EXECUTION_TIMEOUT",
        `Cannot finish the run: it took longer than ${seconds(this.#limits.totalMs)} and was stopped`,
      );
    if (cause === "shutdown")
      return new Fault("EXECUTION_FAILED", "Cannot finish the run: the server was stopped", {
        reason: "shutdown",
      });
    return undefined;
  }

  get durationMs(): number {
    return Math.round(this.#clock.monotonic() - this.#begin);
  }

  /** Resolves when the run is asked to end. */
  get stopped(): Promise<Cause> {
    return this.#stopped.promise;
  }

  /** Resolves with the project's state when the end is on the disk; rejects when it cannot be. */
  get ended(): Promise<ProjectState> {
    return this.#ended.promise;
  }

  /** Asks the run to end; only the first cause counts. */
  stop(cause: Cause): void {
    if (this.#cause) return;
    this.#cause = cause;
    this.#stopped.resolve(cause);
  }

  /** The agent printed something. */
  heard(): void {
    this.#lastOutput = this.#clock.monotonic();
  }

  /** The end is logged; `synced` resolves with the state it led to once that is on the disk. */
  settle(synced: Promise<ProjectState>): void {
    this.#timers.dispose();
    this.#settled.resolve();
    this.#ended.resolve(synced);
  }

  /** Tells whoever waits that the run is over but its end cannot be logged. */
  fail(fault: Fault): void {
    this.#ended.reject(fault);
  }

  /** Looks again whenever the silence could have become too long, not at every line. */
  #watch(silenceMs: number, inMs: number): void {
    const timer = this.#clock.after(inMs, () => {
      if (this.#timers.disposed) return;
      const left = this.#lastOutput + silenceMs - this.#clock.monotonic();
      if (left <= 0) return this.stop("silence");
      this.#watch(silenceMs, left);
    });
    this.#timers.use(timer);
  }
}

const seconds = (ms: number): string => `${Math.round(ms / 1000)} s`;
