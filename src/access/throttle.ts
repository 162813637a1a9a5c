import type { Clock } from "../core/ports.ts";
import { networkOf } from "./address.ts";

/** So many rejected messages in `windowMs` are free; each one more makes the next ones wait. */
const freeRejections = 10;
const windowMs = 60_000;
const maxDelayMs = 60_000;
const verificationsPerSecond = 20;

interface Visitor {
  /** When messages were rejected, as long as it has not had to wait. */
  recent: readonly number[];
  /** How often it had to wait; forgotten when it kept quiet for a minute after that. */
  strikes: number;
  /** Strangers are not looked at before. */
  until: number;
  verifications: number;
  second: number;
}

/**
 * Slows down who guesses. It must be asked about strangers only: a valid token, and a signature
 * by a loaded key, pass whatever it says, so that nobody can lock the owner out. Whoever failed
 * with a loaded key is answered as a stranger is, else the answer would tell which keys are loaded.
 */
export class Throttle {
  readonly #clock: Clock;
  readonly #maxVisitors: number;
  /** By network; the one that was heard of longest ago comes first. */
  readonly #visitors = new Map<string, Visitor>();

  constructor(clock: Clock, maxVisitors = 10_000) {
    this.#clock = clock;
    this.#maxVisitors = maxVisitors;
  }

  /** Networks that are remembered. */
  get size(): number {
    return this.#visitors.size;
  }

  /** Milliseconds until an unknown key, code or token from there is looked at; 0 is now. */
  waitMs(address: string): number {
    const until = this.#visitors.get(networkOf(address))?.until ?? 0;
    return Math.max(0, Math.ceil(until - this.#clock.monotonic()));
  }

  /** Counts a rejected message. From the eleventh in a minute on, each doubles the wait. */
  reject(address: string): void {
    const visitor = this.#touch(networkOf(address));
    const now = this.#clock.monotonic();
    if (visitor.strikes > 0 && now - visitor.until >= windowMs) visitor.strikes = 0;
    visitor.recent = [...visitor.recent.filter((at) => now - at < windowMs), now];
    if (visitor.strikes === 0 && visitor.recent.length <= freeRejections) return;
    visitor.recent = [];
    visitor.strikes += 1;
    visitor.until = now + Math.min(maxDelayMs, 1_000 * 2 ** (visitor.strikes - 1));
  }

  /** Counts a verification by a loaded key; false if there were too many within this second. */
  mayVerify(address: string): boolean {
    const visitor = this.#touch(networkOf(address));
    const second = Math.floor(this.#clock.monotonic() / 1_000);
    if (visitor.second !== second) Object.assign(visitor, { second, verifications: 0 });
    visitor.verifications += 1;
    return visitor.verifications <= verificationsPerSecond;
  }

  #touch(network: string): Visitor {
    const stranger = { recent: [], strikes: 0, until: 0, verifications: 0, second: 0 };
    const visitor: Visitor = this.#visitors.get(network) ?? stranger;
    this.#visitors.delete(network);
    this.#visitors.set(network, visitor);
    const [oldest] = this.#visitors.keys();
    if (this.#visitors.size > this.#maxVisitors && oldest !== undefined)
      this.#visitors.delete(oldest);
    return visitor;
  }
}
