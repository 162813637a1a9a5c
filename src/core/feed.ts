import { Fault } from "../contract/errors.ts";
import type { ProjectEvent, Prompt, ServerData } from "../contract/messages.ts";
import { encode, frameOf } from "./frame.ts";
import type { Clock, LogEntry, LogRepair, MessageLog, Publisher } from "./ports.ts";
import type { Subscription } from "./subscription.ts";

type Verdict = Pick<ServerData<"project_joined">, "resume" | "from">;

/** What the server says about a project, as a log entry. */
export function event(said: ProjectEvent): LogEntry {
  return { direction: "server", message: JSON.stringify(said) };
}

/** An accepted prompt, as a log entry. */
export function promptEntry(data: Prompt): LogEntry {
  return { direction: "client", message: JSON.stringify({ type: "execute", data }) };
}

/** The one way an event leaves a project: numbered, logged, then published, with no await between. */
export class Feed {
  readonly topic: string;
  readonly deltaTopic: string;
  readonly log: MessageLog;
  readonly projectId: string;
  readonly #publisher: Publisher;
  readonly #clock: Clock;
  readonly #subscriptions = new Set<Subscription>();
  /** What was found wrong with the log when it was opened; told to whoever joins. */
  readonly repairs: readonly LogRepair[];
  #checking = false;
  #failing: Fault | undefined;

  constructor(options: {
    projectId: string;
    log: MessageLog;
    repairs: readonly LogRepair[];
    publisher: Publisher;
    clock: Clock;
  }) {
    this.projectId = options.projectId;
    this.topic = `project:${options.projectId}`;
    this.deltaTopic = `deltas:${options.projectId}`;
    this.log = options.log;
    this.repairs = options.repairs;
    this.#publisher = options.publisher;
    this.#clock = options.clock;
  }

  get lastSeq(): number {
    return this.log.lastSeq();
  }

  /** Whether somebody looks at the project, as far as its clients say. */
  get inView(): boolean {
    return [...this.#subscriptions].some(({ visible }) => visible);
  }

  /** Why the last write failed; undefined while writing works. */
  get failing(): Fault | undefined {
    return this.#failing;
  }

  /** Logs all entries or none, then publishes them. Throws a Fault STORAGE_ERROR for none. */
  emit(...entries: readonly LogEntry[]): void {
    const records = this.#append(entries);
    for (const record of records) {
      const { type, text } = frameOf(this.projectId, record);
      this.#publisher.publish(this.topic, type, text);
    }
    this.#published();
  }

  /** A partial message: published to those who want it, never logged. */
  delta(text: string): void {
    const frame = encode("agent_message", text, {
      project_id: this.projectId,
      timestamp: this.#clock.now().toISOString(),
    });
    this.#publisher.publish(this.deltaTopic, frame.type, frame.text);
    this.#published();
  }

  /** A notice about storage itself, which therefore has no number and is not logged. */
  storageNotice(data: ServerData<"notice">): void {
    const frame = encode("notice", JSON.stringify(data), {
      project_id: this.projectId,
      timestamp: this.#clock.now().toISOString(),
    });
    this.#publisher.publish(this.topic, frame.type, frame.text);
  }

  /** From where a client that has everything up to `afterSeq` of `epoch` must be served. */
  resume(afterSeq: number | undefined, epoch: string | undefined): Verdict {
    if (afterSeq === undefined) return { resume: "fresh", from: this.lastSeq };
    const first = this.log.firstSeq() - 1;
    const foreign = epoch !== undefined && epoch !== this.log.state().epoch;
    if (foreign || afterSeq > this.lastSeq) return { resume: "reset", from: 0 };
    if (afterSeq < first) return { resume: "truncated", from: first };
    return { resume: "ok", from: afterSeq };
  }

  add(subscription: Subscription): void {
    this.#subscriptions.add(subscription);
  }

  remove(subscription: Subscription): void {
    this.#subscriptions.delete(subscription);
  }

  /** Ends every subscription and closes the log. */
  async close(): Promise<void> {
    for (const subscription of this.#subscriptions) subscription.stop();
    await this.log.close();
  }

  #append(entries: readonly LogEntry[]) {
    try {
      const records = this.log.append(entries, this.#clock.now());
      if (this.#failing) this.#recovered();
      return records;
    } catch (error) {
      if (error instanceof Fault && !this.#failing) {
        this.#failing = error;
        this.storageNotice(error.data);
      }
      throw error;
    }
  }

  #recovered(): void {
    this.#failing = undefined;
    this.storageNotice({
      code: "STORAGE_RECOVERED",
      message: "The log can be written again; nothing was lost",
    });
  }

  /** Looks for slow subscribers once the present burst of publishing is over. */
  #published(): void {
    if (this.#checking || this.#subscriptions.size === 0) return;
    this.#checking = true;
    queueMicrotask(() => {
      this.#checking = false;
      for (const subscription of this.#subscriptions) subscription.check();
    });
  }
}
