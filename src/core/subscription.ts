import { Fault } from "../contract/errors.ts";
import type { Feed } from "./feed.ts";
import { encode, frameOf } from "./frame.ts";
import type { Clock, LogReader, Outlet, Telemetry } from "./ports.ts";

/** Bytes waiting for a socket above which a subscriber is slow. */
const highWaterBytes = 256 * 1024;
/** Bytes of log read in one go; the loop gets a turn after each. */
const pageBytes = 128 * 1024;

/**
 * One client's place in one project's feed. It is either LIVE, subscribed to the project's topics,
 * or in REPLAY, reading the log at the speed of its socket. The switch to LIVE happens in the same
 * synchronous block as the test that the log has nothing more: an await between would be a gap.
 */
export class Subscription {
  /** Whether its client has said that somebody looks at the project. */
  visible = false;
  readonly #feed: Feed;
  readonly #outlet: Outlet;
  readonly #clock: Clock;
  readonly #telemetry: Telemetry;
  readonly #deltas: boolean;
  #cursor: number;
  /** Present in REPLAY only. */
  #reader: LogReader | undefined;
  #live = false;
  #stopped = false;
  #scheduled = false;

  constructor(
    feed: Feed,
    outlet: Outlet,
    options: { from: number; deltas: boolean; clock: Clock; telemetry: Telemetry },
  ) {
    this.#feed = feed;
    this.#outlet = outlet;
    this.#cursor = options.from;
    this.#deltas = options.deltas;
    this.#clock = options.clock;
    this.#telemetry = options.telemetry;
    feed.add(this);
  }

  /** Serves the client from its cursor: at once, after `drain`, and after each page. */
  pump(): void {
    if (this.#stopped || this.#live || this.#scheduled) return;
    if (!this.#outlet.open() || this.#outlet.buffered() >= highWaterBytes) return;
    try {
      if (this.#sendPage()) return this.#enterLive();
    } catch (error) {
      return this.#fail(error);
    }
    this.#scheduled = true;
    this.#clock.soon(() => {
      this.#scheduled = false;
      this.pump();
    });
  }

  /** Moves a live subscriber whose socket does not keep up back to the log. */
  check(): void {
    if (!this.#live || this.#outlet.buffered() < highWaterBytes) return;
    this.#leaveTopics();
    // Everything published so far is on its way to this socket already.
    this.#cursor = this.#feed.lastSeq;
    this.#telemetry.count("slow_subscribers_total", {});
  }

  /** Whether nothing will ever be sent any more. */
  get stopped(): boolean {
    return this.#stopped;
  }

  stop(): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#reader = undefined;
    this.#feed.remove(this);
    if (this.#live) this.#leaveTopics();
  }

  /** Sends the next page; true when the log has nothing after the cursor. */
  #sendPage(): boolean {
    if (this.#cursor >= this.#feed.lastSeq) return true;
    this.#reader ??= this.#feed.log.reader(this.#cursor);
    const records = this.#reader.next(pageBytes);
    for (const record of records) {
      const { type, text } = frameOf(this.#feed.projectId, record);
      this.#outlet.send(type, text);
      this.#cursor = record.seq;
    }
    this.#telemetry.count("replay_events_total", {}, records.length);
    // Nothing readable is left, although the numbers say so: a damaged end of the log.
    if (records.length === 0) this.#cursor = this.#feed.lastSeq;
    return this.#cursor >= this.#feed.lastSeq;
  }

  /** The log cannot be read: the client is told, and may join again. */
  #fail(error: unknown): void {
    this.stop();
    const project_id = this.#feed.projectId;
    this.#telemetry.count("log_errors_total", { operation: "read" });
    this.#telemetry.log("error", "cannot replay a log", { project_id, error });
    const fault = new Fault("STORAGE_ERROR", "Cannot send the history: the log cannot be read");
    const timestamp = this.#clock.now().toISOString();
    const { type, text } = encode("error", JSON.stringify(fault.data), { project_id, timestamp });
    this.#outlet.send(type, text);
  }

  #enterLive(): void {
    const { topic, deltaTopic, projectId, lastSeq } = this.#feed;
    this.#reader = undefined;
    this.#live = true;
    this.#outlet.subscribe(topic);
    if (this.#deltas) this.#outlet.subscribe(deltaTopic);
    const { type, text } = encode("caught_up", JSON.stringify({ seq: lastSeq }), {
      project_id: projectId,
      timestamp: this.#clock.now().toISOString(),
    });
    this.#outlet.send(type, text);
  }

  #leaveTopics(): void {
    this.#live = false;
    this.#outlet.unsubscribe(this.#feed.topic);
    if (this.#deltas) this.#outlet.unsubscribe(this.#feed.deltaTopic);
  }
}
