import type { Stats } from "../contract/messages.ts";
import type { Telemetry } from "./ports.ts";
import type { Outcome } from "./run.ts";

/** Counts runs, for `server_stats` and for the metrics alike. */
export class ExecutionStats {
  readonly #telemetry: Telemetry;
  #active = 0;
  #total = 0;
  #success = 0;
  #failed = 0;
  #durationMs = 0;

  constructor(telemetry: Telemetry) {
    this.#telemetry = telemetry;
  }

  get active(): number {
    return this.#active;
  }

  started(): void {
    this.#active += 1;
    this.#telemetry.gauge("executions_active", {}, this.#active);
  }

  ended(outcome: Outcome, durationMs: number): void {
    this.#active -= 1;
    this.#total += 1;
    this.#durationMs += durationMs;
    if (outcome === "success") this.#success += 1;
    if (outcome === "failed" || outcome === "timeout") this.#failed += 1;
    this.#telemetry.gauge("executions_active", {}, this.#active);
    this.#telemetry.count("executions_total", { outcome });
    this.#telemetry.observe("execution_duration_seconds", { outcome }, durationMs / 1000);
  }

  snapshot(queued: number): Stats["executions"] {
    return {
      active: this.#active,
      queued,
      total: this.#total,
      success: this.#success,
      failed: this.#failed,
      avg_duration_ms: this.#total === 0 ? 0 : Math.round(this.#durationMs / this.#total),
    };
  }
}
