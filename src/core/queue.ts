import { Fault } from "../contract/errors.ts";
import type { Config } from "../contract/options.ts";
import type { Clock, Telemetry } from "./ports.ts";
import type { Project } from "./project.ts";
import type { ExecutionStats } from "./stats.ts";

interface Waiting {
  readonly project: Project;
  readonly executionId: string;
  readonly queuedAt: string;
}

/** Whose turn it is: first come first served across projects, one run a project at a time. */
export class Queue {
  readonly #config: Pick<Config, "maxConcurrent" | "queueSize">;
  readonly #clock: Clock;
  readonly #telemetry: Telemetry;
  readonly #stats: ExecutionStats;
  #waiting: Waiting[] = [];
  #scheduled = false;
  #closed = false;

  constructor(deps: { config: Config; clock: Clock; telemetry: Telemetry; stats: ExecutionStats }) {
    this.#config = deps.config;
    this.#clock = deps.clock;
    this.#telemetry = deps.telemetry;
    this.#stats = deps.stats;
  }

  get length(): number {
    return this.#waiting.length;
  }

  /** Whether one more run may start now. */
  get free(): boolean {
    return this.#stats.active < this.#config.maxConcurrent;
  }

  /** Throws when one more prompt cannot wait. */
  admit(): void {
    if (this.length < this.#config.queueSize) return;
    throw new Fault(
      "RESOURCE_LIMIT",
      `Cannot queue the prompt: ${this.length} wait already (execution.queue_size)`,
      { resource: "queue" },
    );
  }

  /** Takes a place behind whoever came before; a restored one gets its old place back. */
  add(project: Project, { execution_id, queued_at }: { execution_id: string; queued_at: string }) {
    this.#waiting.push({ project, executionId: execution_id, queuedAt: queued_at });
    this.#waiting.sort((a, b) => Date.parse(a.queuedAt) - Date.parse(b.queuedAt));
    this.#changed();
  }

  remove(executionId: string): void {
    this.#waiting = this.#waiting.filter((waiting) => waiting.executionId !== executionId);
    this.#changed();
  }

  /** Nothing starts any more. */
  close(): void {
    this.#closed = true;
  }

  /** Starts what can start, once whatever is happening now is over. */
  schedule(): void {
    if (this.#scheduled || this.#closed || this.length === 0) return;
    this.#scheduled = true;
    this.#clock.soon(() => {
      this.#scheduled = false;
      this.#start();
    });
  }

  #start(): void {
    while (!this.#closed && this.free) {
      const next = this.#waiting.find(({ project }) => project.ready);
      if (!next) return;
      try {
        next.project.startQueued(next.executionId);
      } catch (error) {
        // The log cannot be written: the prompt keeps its place, and is tried again.
        this.#telemetry.log("warn", "cannot start a queued prompt", {
          project_id: next.project.id,
          execution_id: next.executionId,
          error,
        });
        this.#clock.after(1_000, () => this.schedule());
        return;
      }
      this.remove(next.executionId);
    }
  }

  #changed(): void {
    this.#telemetry.gauge("queue_length", {}, this.length);
    this.schedule();
  }
}
