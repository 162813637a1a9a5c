import { monitorEventLoopDelay } from "node:perf_hooks";
import type { Health } from "../contract/messages.ts";
import type { Disk } from "../core/ports.ts";

/** How often the loop's delay is measured. Each time wakes a server that has nothing else to do. */
const resolution = 100;

/** What the server takes from its machine. */
export class System implements Disposable {
  readonly #disk: Disk;
  readonly #delay = monitorEventLoopDelay({ resolution });
  #cpu = process.cpuUsage();
  #at = performance.now();
  #cpuPercent = 0;

  constructor(disk: Disk) {
    this.#disk = disk;
    this.#delay.enable();
  }

  /** Since the last call of `sample`, the first row apart. */
  get resources(): Health["resources"] {
    return {
      cpu_percent: this.#cpuPercent,
      memory_mb: Math.round(process.memoryUsage.rss() / 1_048_576),
      disk_free_gb: Math.round((this.#disk.free() / 1_073_741_824) * 10) / 10,
      event_loop_lag_ms: this.lagMs,
    };
  }

  /** p99 of the event loop's delay; in Bun the time between two measurements is not part of it. */
  get lagMs(): number {
    const p99 = this.#delay.percentile(99) / 1e6;
    return Number.isFinite(p99) ? Math.max(0, Math.round(p99 * 10) / 10) : 0;
  }

  /** Begins a new interval of measuring. */
  sample(): void {
    const now = performance.now();
    const used = process.cpuUsage(this.#cpu);
    this.#cpuPercent = Math.round((used.user + used.system) / (now - this.#at)) / 10;
    this.#cpu = process.cpuUsage();
    this.#at = now;
    this.#delay.reset();
  }

  [Symbol.dispose](): void {
    this.#delay.disable();
  }
}
