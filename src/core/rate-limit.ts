import type { Clock } from "./ports.ts";

/** A bucket that holds `burst` tokens and is refilled with `perSecond`. */
export class RateLimit {
  readonly #clock: Clock;
  readonly #perSecond: number;
  readonly #burst: number;
  #tokens: number;
  #at: number;

  constructor(clock: Clock, perSecond: number, burst: number) {
    this.#clock = clock;
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#tokens = burst;
    this.#at = clock.monotonic();
  }

  /** Takes `cost` tokens and returns 0, or takes none and returns the milliseconds to wait. */
  take(cost = 1): number {
    this.#refill();
    if (this.#tokens < cost) return Math.ceil(((cost - this.#tokens) / this.#perSecond) * 1000);
    this.#tokens -= cost;
    return 0;
  }

  /** Whether nothing was taken for so long that forgetting this bucket changes nothing. */
  get full(): boolean {
    this.#refill();
    return this.#tokens >= this.#burst;
  }

  #refill(): void {
    const now = this.#clock.monotonic();
    this.#tokens = Math.min(
      this.#burst,
      this.#tokens + ((now - this.#at) / 1000) * this.#perSecond,
    );
    this.#at = now;
  }
}
