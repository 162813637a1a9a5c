import type { Notification } from "../contract/notifications.ts";
import type { Clock, Telemetry } from "../core/ports.ts";
import { type Letter, post, reasonOf, type Reception } from "./post.ts";

/** One place that notifications go to. */
export interface Target {
  readonly channel: "webpush" | "webhook" | "ntfy";
  /** Whose it is, if it is a device's. */
  readonly device?: string;
  /** What is sent, made anew for each attempt; undefined when nobody wants it any more. */
  readonly compose: (notification: Notification) => Promise<Letter | undefined>;
  /** Called when the other side says that there is no such place any more. */
  readonly gone?: (letter: Letter) => Promise<void>;
}

export interface OutboxDeps {
  /** Time that one attempt may take. */
  readonly timeoutMs: number;
  readonly clock: Clock;
  readonly telemetry: Telemetry;
}

type Outcome = "sent" | "failed" | "gone" | "dropped";

/** How many wait for one place; for one more, the oldest is dropped. */
const maxWaiting = 64;
/** Time between attempts, of which there is one more. */
const pausesMs = [1_000, 5_000, 25_000];
/** The longest that the other side may ask us to wait. */
const maxPauseMs = 60_000;

/** Delivers notifications to one place, in order, one at a time. */
export class Outbox {
  readonly #target: Target;
  readonly #deps: OutboxDeps;
  readonly #waiting: Notification[] = [];
  readonly #abort = new AbortController();
  /** Ends the pause before the next attempt, which is not made then. */
  #endPause: (() => void) | undefined;
  #closing = false;
  /** Whether something was dropped since the last one was taken: said once, and counted each time. */
  #dropping = false;
  #work: Promise<void> | undefined;

  constructor(target: Target, deps: OutboxDeps) {
    this.#target = target;
    this.#deps = deps;
  }

  /** Whether nothing is on its way. */
  get idle(): boolean {
    return this.#work === undefined;
  }

  /** Resolves when what is on its way now has come to an end. Never rejects. */
  async settled(): Promise<void> {
    await this.#work;
  }

  put(notification: Notification): void {
    this.#waiting.push(notification);
    if (this.#waiting.length > maxWaiting) this.#drop("too many wait for the same place");
    this.#work ??= this.#deliverAll();
  }

  /** From now on nothing is tried a second time. */
  close(): void {
    this.#closing = true;
    this.#endPause?.();
  }

  /** Gives up on everything that is on its way. */
  abort(): void {
    this.close();
    this.#abort.abort();
    while (this.#waiting.length > 0) this.#drop("the server stops");
  }

  async #deliverAll(): Promise<void> {
    // Whoever had something to tell goes on first.
    await Promise.resolve();
    for (let next = this.#waiting.shift(); next; next = this.#waiting.shift())
      // oxlint-disable-next-line no-await-in-loop -- in order
      this.#count(await this.#deliver(next));
    this.#work = undefined;
  }

  /** Never rejects. */
  async #deliver(notification: Notification): Promise<Outcome> {
    for (let attempt = 1; ; attempt += 1) {
      // oxlint-disable-next-line no-await-in-loop -- one attempt after the other
      const reception = await this.#attempt(notification);
      if (reception === "gone") return "gone";
      if (reception.taken) return "sent";
      const pauseMs = pauseAfter(attempt, reception);
      // oxlint-disable-next-line no-await-in-loop -- as above
      if (pauseMs !== undefined && (await this.#pause(pauseMs))) continue;
      this.#complain(notification, { reason: reception.reason, attempts: attempt });
      return "failed";
    }
  }

  async #attempt(notification: Notification): Promise<Reception | "gone"> {
    const { compose, gone } = this.#target;
    try {
      const letter = await compose(notification);
      if (!letter) return "gone";
      const reception = await post(letter, this.#deps.timeoutMs, this.#abort.signal);
      if (reception.taken || !gone || !isGone(reception)) return reception;
      await gone(letter);
      return "gone";
    } catch (error) {
      return { taken: false, reason: reasonOf(error), passing: false };
    }
  }

  /** Waits before another attempt; resolves to whether there is to be one. */
  async #pause(ms: number): Promise<boolean> {
    if (this.#closing) return false;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    this.#endPause = () => resolve(false);
    using timers = new DisposableStack();
    timers.use(this.#deps.clock.after(ms, () => resolve(true)));
    return await promise;
  }

  #drop(reason: string): void {
    const dropped = this.#waiting.shift();
    if (!dropped) return;
    if (!this.#dropping) this.#complain(dropped, { reason, attempts: 0 });
    this.#dropping = true;
    this.#count("dropped");
  }

  #complain({ event, project_id }: Notification, why: { reason: string; attempts: number }): void {
    const { channel, device } = this.#target;
    const about = { channel, device, event, project_id };
    this.#deps.telemetry.log("warn", "cannot deliver a notification", { ...about, ...why });
  }

  #count(outcome: Outcome): void {
    const { channel } = this.#target;
    if (outcome === "sent") this.#dropping = false;
    this.#deps.telemetry.count("notifications_total", { channel, outcome });
  }
}

function isGone({ status }: Extract<Reception, { taken: false }>): boolean {
  return status === 404 || status === 410;
}

/** Undefined when another attempt would be of no use, or was asked to be later than we wait. */
function pauseAfter(
  attempt: number,
  { passing, retryAfterMs }: Extract<Reception, { taken: false }>,
): number | undefined {
  const planned = pausesMs[attempt - 1];
  if (!passing || planned === undefined) return undefined;
  if (retryAfterMs === undefined) return planned;
  return retryAfterMs <= maxPauseMs ? retryAfterMs : undefined;
}
