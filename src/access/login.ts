import type { Actor, Scope } from "../contract/messages.ts";
import type { Clock } from "../core/ports.ts";
import type { Authentication, Identity, Visitor } from "./authentication.ts";
import { newChallenge } from "./challenge.ts";
import type { Device } from "./devices.ts";

/** Failed attempts that one connection may make. */
const maxFailures = 3;

/** Who one connection belongs to, once that is known, and what it was asked to prove. */
export class Login {
  readonly visitor: Visitor;
  /** When the connection must have logged in, on the wire and on the server's own clock. */
  readonly expiresAt: string;
  readonly #deadline: number;
  readonly #authentication: Authentication;
  readonly #clock: Clock;
  #identity: Identity | undefined;
  #failures = 0;
  /** Somebody at the terminal is asked, who may take longer than a program. */
  #waiting = false;

  constructor(
    authentication: Authentication,
    from: { address: string; audience: string; server: string; timeoutMs: number },
    clock: Clock,
  ) {
    const { address, audience, server, timeoutMs } = from;
    this.visitor = { address, binding: { audience, server, challenge: newChallenge() } };
    this.expiresAt = new Date(clock.now().getTime() + timeoutMs).toISOString();
    this.#deadline = clock.monotonic() + timeoutMs;
    this.#authentication = authentication;
    this.#clock = clock;
  }

  /** Whether somebody has logged in here, who perhaps may not come in any more. */
  get done(): boolean {
    return this.#identity !== undefined;
  }

  /** The device as the server's record has it at this moment; undefined if it may not be here. */
  get device(): Device | undefined {
    const { address } = this.visitor;
    return this.#identity && this.#authentication.device(this.#identity, address);
  }

  /** The id under which it came in. */
  get deviceId(): string | undefined {
    return this.#identity?.deviceId;
  }

  get scope(): Scope | "none" {
    return this.device?.scope ?? "none";
  }

  get actor(): Actor | null {
    const { device } = this;
    return device ? { id: device.id, name: device.name } : null;
  }

  /** Whether the time to log in is over. */
  get overdue(): boolean {
    return !this.done && !this.#waiting && this.#clock.monotonic() >= this.#deadline;
  }

  /** Whether somebody at the terminal is being asked. */
  get waiting(): boolean {
    return this.#waiting;
  }

  enter(identity: Identity): void {
    this.#identity = identity;
  }

  /** Lets the time to log in stand still until this is settled. */
  async outlast<T>(asked: Promise<T>): Promise<T> {
    this.#waiting = true;
    try {
      return await asked;
    } finally {
      this.#waiting = false;
    }
  }

  /** Counts a failed attempt; true when it was the last. */
  failed(): boolean {
    this.#failures += 1;
    return this.#failures >= maxFailures;
  }
}
