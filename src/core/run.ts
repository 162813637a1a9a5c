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
  /** Whether somebody asked for it; the agent begins a turn by itself when a background task ends. */
  readonly solicited: boolean;
  /** The device that asked for it; null where that is not known. */
  readonly deviceId: string | null;
  /** A person refused a request and asked the agent to stop: its error is no failure. */
  interrupted = false;
  readonly #limits: Limits;
  readonly #clock: Clock;
  readonly #begin: number;
  readonly #stopped = Promise.withResolvers<Cause>();
  readonly #settled = Promise.withResolvers<void>();
  readonly #ended = Promise.withResolvers<ProjectState>();
  #timer: Disposable | undefined;
  #lastOutput: number;
  #pausedAt: number | undefined;
  #pausedMs = 0;
  #cause: Cause | undefined;
  #over = false;

  constructor(
    options: { id: string; solicited: boolean; deviceId: string | null; limits: Limits },
    clock: Clock,
  ) {
    this.id = options.id;
    this.solicited = options.solicited;
    this.deviceId = options.deviceId;
    this.#limits = options.limits;
    this.#clock = clock;
    this.#begin = clock.monotonic();
    this.#lastOutput = this.#begin;
    this.#arm();
    // Whoever waits for the end is told why it failed; without a waiter it is no unhandled error.
    this.#ended.promise.catch(() => undefined);
  }

  get cause(): Cause | undefined {
    return this.#cause;
  }

  /** Whether its end is logged, if perhaps not yet on the disk. */
  get over(): boolean {
    return this.#over;
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

  /** Resolves when it is over. */
  get settled(): Promise<void> {
    return this.#settled.promise;
  }

  /** Resolves with the project's state when the end is on the disk; rejects when it cannot be. */
  get ended(): Promise<ProjectState> {
    return this.#ended.promise;
  }

  /** Asks the run to end; only the first cause counts. */
  stop(cause: Cause): void {
    if (this.#cause) return;
    this.#cause = cause;
    this.#timer?.[Symbol.dispose]();
    this.#stopped.resolve(cause);
  }

  /** The agent printed something. */
  heard(): void {
    this.#lastOutput = this.#clock.monotonic();
  }

  /** Somebody is asked: until `resume`, time does not count. */
  pause(): void {
    if (this.#pausedAt !== undefined) return;
    this.#pausedAt = this.#clock.monotonic();
    this.#timer?.[Symbol.dispose]();
  }

  resume(): void {
    if (this.#pausedAt === undefined) return;
    this.#pausedMs += this.#clock.monotonic() - this.#pausedAt;
    this.#pausedAt = undefined;
    this.heard();
    this.#arm();
  }

  /** The end is logged; `synced` resolves with the state it led to once that is on the disk. */
  settle(synced: Promise<ProjectState>): void {
    this.#over = true;
    this.#timer?.[Symbol.dispose]();
    this.#settled.resolve();
    this.#ended.resolve(synced);
  }

  /** Tells whoever waits that the run is over but its end cannot be logged. */
  fail(fault: Fault): void {
    this.#ended.reject(fault);
  }

  /** Looks again when a limit could have been reached, not at every line. */
  #arm(): void {
    if (this.#over || this.#cause || this.#pausedAt !== undefined) return;
    const { silenceMs, totalMs } = this.#limits;
    const now = this.#clock.monotonic();
    const silence = silenceMs > 0 ? this.#lastOutput + silenceMs - now : Infinity;
    const total = totalMs > 0 ? this.#begin + this.#pausedMs + totalMs - now : Infinity;
    if (silence <= 0) return this.stop("silence");
    if (total <= 0) return this.stop("total");
    const left = Math.min(silence, total);
    if (left < Infinity) this.#timer = this.#clock.after(Math.ceil(left), () => this.#arm());
  }
}

const seconds = (ms: number): string => `${Math.round(ms / 1000)} s`;
