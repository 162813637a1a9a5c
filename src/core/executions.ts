import * as v from "valibot";
import { agentOptions } from "../contract/agent-options.ts";
import { actor, type ExecutionStatus } from "../contract/messages.ts";
import type { Feed } from "./feed.ts";
import type { Clock, LogRecord, ProjectStore, QueuedPrompt, Telemetry } from "./ports.ts";

const maxAccepted = 1_000;
/** Changes come in bursts, and nobody should wait for a cache. */
const saveAfterMs = 100;
/** How far behind the log its cache may be before only the end of the difference is looked at. */
const maxBehind = 100_000;
const pageBytes = 1024 * 1024;

const prompt = v.looseObject({
  execution_id: v.string(),
  prompt: v.string(),
  options: agentOptions,
  images: v.number(),
  device: v.nullable(actor),
});
const logged = v.variant("type", [
  v.looseObject({ type: v.literal("execute"), data: prompt }),
  v.looseObject({ type: v.literal("execution_queued"), data: prompt }),
  v.looseObject({
    type: v.literal("execution_cancelled"),
    data: v.looseObject({ execution_id: v.string() }),
  }),
  v.looseObject({
    type: v.literal("project_state"),
    data: v.looseObject({ state: v.string(), execution: v.nullable(v.unknown()) }),
  }),
]);

/**
 * Which prompts a project has accepted, and which of them wait. The log is what counts; a file
 * caches it, together with the images of waiting prompts, which no log holds.
 */
export class Executions {
  readonly #projectId: string;
  readonly #feed: Feed;
  readonly #store: ProjectStore;
  readonly #telemetry: Telemetry;
  readonly #clock: Clock;
  /** How many wait, as far as it is known without looking. */
  readonly #hint: number;
  readonly #accepted = new Map<string, ExecutionStatus>();
  #queue: QueuedPrompt[] = [];
  #loaded = false;
  #saving: Disposable | undefined;

  constructor(
    feed: Feed,
    queued: number,
    {
      store,
      telemetry,
      clock,
    }: {
      store: ProjectStore;
      telemetry: Telemetry;
      clock: Clock;
    },
  ) {
    this.#projectId = feed.projectId;
    this.#feed = feed;
    this.#hint = queued;
    this.#store = store;
    this.#telemetry = telemetry;
    this.#clock = clock;
  }

  get queued(): number {
    return this.#loaded ? this.#queue.length : this.#hint;
  }

  /** Waiting prompts, first come first. */
  get queue(): readonly QueuedPrompt[] {
    this.#load();
    return this.#queue;
  }

  /** What became of an id that was accepted before. */
  status(id: string): { status: ExecutionStatus; position?: number } | undefined {
    this.#load();
    const status = this.#accepted.get(id);
    if (status !== "queued") return status && { status };
    return { status, position: this.#queue.findIndex((entry) => entry.execution_id === id) + 1 };
  }

  /** Notes what the log has just been told. */
  note(id: string, status: ExecutionStatus): void {
    this.#load();
    this.#set(id, status);
    this.#saving ??= this.#clock.after(saveAfterMs, () => void this.flush());
  }

  /** Saves what is not saved yet; a failure is logged, because the log of the project has it all. */
  async flush(): Promise<void> {
    if (!this.#saving) return;
    try {
      await this.save();
    } catch (error) {
      this.#telemetry.log("warn", "cannot save the executions of a project", {
        project_id: this.#projectId,
        error,
      });
    }
  }

  /** Notes a prompt that the log has just been told of. */
  enqueue(entry: QueuedPrompt): void {
    // The log, if it is only read now, has it already, but without its images.
    this.take(entry.execution_id);
    this.#queue.push(entry);
    this.note(entry.execution_id, "queued");
  }

  /** Takes a prompt out of the queue; undefined if it does not wait there. */
  take(id: string): QueuedPrompt | undefined {
    const entry = this.queue.find(({ execution_id }) => execution_id === id);
    if (entry) this.#queue = this.#queue.filter((other) => other !== entry);
    return entry;
  }

  /** Gives a prompt that could not be started its first place back. */
  putBack(entry: QueuedPrompt): void {
    this.#queue.unshift(entry);
  }

  /** Resolves once what is known now is on the disk; the log first, so the cache is never ahead. */
  async save(): Promise<void> {
    this.#saving?.[Symbol.dispose]();
    this.#saving = undefined;
    const file = {
      seq: this.#feed.lastSeq,
      accepted: [...this.#accepted],
      queue: [...this.#queue],
    };
    await this.#feed.log.sync();
    await this.#store.saveExecutions(this.#projectId, file);
  }

  /** Reads the cache and what the log has had since; the first time that anybody asks. */
  #load(): void {
    if (this.#loaded) return;
    this.#loaded = true;
    const file = this.#store.loadExecutions(this.#projectId);
    for (const [id, status] of file?.accepted ?? []) this.#set(id, status);
    this.#queue = [...(file?.queue ?? [])];
    const { lastSeq } = this.#feed;
    const reader = this.#feed.log.reader(Math.max(file?.seq ?? 0, lastSeq - maxBehind));
    for (let page = reader.next(pageBytes); page.length > 0; page = reader.next(pageBytes))
      for (const record of page) this.#replay(record);
    // A run that was in progress when the server went down has failed.
    for (const [id, status] of this.#accepted) if (status === "running") this.#set(id, "failed");
  }

  #replay(record: LogRecord): void {
    if (record.direction === "claude") return;
    const parsed = v.safeParse(logged, JSON.parse(record.message));
    if (!parsed.success) return;
    const { type, data } = parsed.output;
    if (type === "project_state") return this.#ended(data.state);
    if (type === "execution_cancelled") {
      this.take(data.execution_id);
      return this.#set(data.execution_id, "killed");
    }
    const { execution_id } = data;
    if (type === "execute") {
      this.take(execution_id);
      return this.#set(execution_id, "running");
    }
    // Its images are lost, and so it was never acknowledged: it may be sent again.
    const known = this.#accepted.has(execution_id) || this.#waits(execution_id);
    if (data.images > 0 || known) return undefined;
    const { prompt: text, options, device } = data;
    const entry = { execution_id, prompt: text, options, images: [], device };
    this.#queue.push({ ...entry, queued_at: record.timestamp });
    return this.#set(execution_id, "queued");
  }

  #waits(id: string): boolean {
    return this.#queue.some(({ execution_id }) => execution_id === id);
  }

  #ended(state: string): void {
    if (state === "EXECUTING") return;
    for (const [id, status] of this.#accepted)
      if (status === "running") this.#set(id, state === "ERROR" ? "failed" : "succeeded");
  }

  #set(id: string, status: ExecutionStatus): void {
    this.#accepted.set(id, status);
    if (this.#accepted.size <= maxAccepted) return;
    const old = [...this.#accepted].find(([, known]) => known !== "queued" && known !== "running");
    if (old) this.#accepted.delete(old[0]);
  }
}
