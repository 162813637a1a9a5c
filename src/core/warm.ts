import type { Telemetry } from "./ports.ts";

/** An idle agent that waits for a next prompt. */
export interface WarmAgent {
  /** Something it was asked to do in the background still runs. */
  readonly busy: boolean;
  readonly evict: () => void;
}

/** The idle agents of all projects: few, because each costs about 130 MB. */
export class Warm {
  readonly #max: number;
  readonly #telemetry: Telemetry;
  /** Longest idle first. */
  readonly #agents = new Set<WarmAgent>();

  constructor(max: number, telemetry: Telemetry) {
    this.#max = max;
    this.#telemetry = telemetry;
  }

  /** Keeps one more; the one that has been idle longest goes, if they are too many. */
  add(agent: WarmAgent): void {
    this.#agents.add(agent);
    while (this.#agents.size > this.#max) {
      const all = [...this.#agents];
      const oldest = all.find(({ busy }) => !busy) ?? all[0];
      if (!oldest) break;
      this.#agents.delete(oldest);
      this.#telemetry.count("warm_evictions_total", {});
      oldest.evict();
    }
    this.#report();
  }

  /** It is in use again, or gone. */
  delete(agent: WarmAgent): void {
    this.#agents.delete(agent);
    this.#report();
  }

  #report(): void {
    this.#telemetry.gauge("processes_warm", {}, this.#agents.size);
  }
}
