import type { AgentOptions, Image } from "../contract/agent-options.ts";
import { Fault } from "../contract/errors.ts";
import type { ProjectState } from "../contract/messages.ts";
import type { Config } from "../contract/options.ts";
import { resolveOptions } from "./agent-request.ts";
import { Conversation } from "./conversation.ts";
import { event, type Feed } from "./feed.ts";
import { Ledger } from "./ledger.ts";
import type {
  AgentRunner,
  Clock,
  Directories,
  Directory,
  Disk,
  ProjectMetadata,
  ProjectStore,
  Telemetry,
} from "./ports.ts";
import { RateLimit } from "./rate-limit.ts";
import type { Cause } from "./run.ts";
import type { ExecutionStats } from "./stats.ts";

export interface ProjectDeps {
  readonly config: Config;
  readonly runner: AgentRunner;
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly store: ProjectStore;
  readonly directories: Directories;
  readonly disk: Disk;
  readonly stats: ExecutionStats;
  /** Called after every change that clients see without having joined. */
  readonly changed: (project: Project) => void;
}

export interface ExecuteRequest {
  readonly prompt: string;
  readonly options: AgentOptions;
  readonly images: readonly Image[];
  readonly device: string | null;
}

/** One directory, its conversation, and at most one running agent. */
export class Project {
  readonly id: string;
  readonly path: string;
  readonly feed: Feed;
  readonly #deps: ProjectDeps;
  readonly #ledger: Ledger;
  readonly #conversation: Conversation;
  readonly #rate: RateLimit;
  #identity: Directory | undefined;

  constructor(metadata: ProjectMetadata, feed: Feed, deps: ProjectDeps) {
    this.id = metadata.id;
    this.path = metadata.path;
    this.feed = feed;
    this.#deps = deps;
    this.#ledger = new Ledger(metadata, feed, { deps, changed: () => deps.changed(this) });
    this.#conversation = new Conversation(this.#ledger, deps, () => this.#checkDirectory());
    const perMinute = deps.config.executeRate;
    this.#rate = new RateLimit(deps.clock, perMinute / 60, Math.ceil(perMinute / 2));
  }

  get snapshot(): ProjectState {
    return this.#ledger.snapshot;
  }

  get metadata(): ProjectMetadata {
    return this.#ledger.metadata;
  }

  get executing(): boolean {
    return this.#ledger.run !== undefined;
  }

  /** Caches what the log says, for the next start. */
  save(): void {
    this.#ledger.save();
  }

  /** Settles what a server that went down in the middle of a run left behind. */
  recover(): void {
    this.#ledger.recover();
  }

  /**
   * Accepts a prompt and starts its run, synchronously; `accepted` is called in between, when
   * nothing can refuse it any more but the disk. What the agent says reaches clients by the feed.
   */
  execute(request: ExecuteRequest, accepted: () => void): ProjectState {
    this.#admit();
    const resolved = resolveOptions(request.options, this.path, this.#deps);
    const wait = this.#rate.take();
    if (wait > 0)
      throw new Fault("RATE_LIMITED", "Cannot run the prompt: too many prompts in this project", {
        retry_after_ms: wait,
      });
    accepted();
    const { prompt, options, images, device } = request;
    const execution_id = crypto.randomUUID();
    const run = this.#ledger.begin(
      { execution_id, prompt, options, images: images.length, device },
      resolved,
    );
    this.#deps.telemetry.log("info", "execution started", {
      project_id: this.id,
      execution_id,
      prompt_length: prompt.length,
      images: images.length,
    });
    void this.#conversation.hold(run, { text: prompt, images }, resolved);
    return this.snapshot;
  }

  /** Stops the run, or acknowledges an error. Resolves once nothing of the run is left. */
  async kill(force: boolean): Promise<ProjectState> {
    const { run, status } = this.#ledger;
    if (!run && status.state !== "ERROR")
      throw new Fault("PROCESS_NOT_FOUND", "Cannot stop the run: nothing is running");
    if (!run) {
      this.#ledger.enter({ state: "IDLE", error: null });
      const state = this.snapshot;
      await this.feed.log.sync();
      return state;
    }
    run.stop("kill");
    if (force) this.#conversation.force();
    return await run.ended;
  }

  /** Lets the next prompt begin a new conversation; returns the id of the one that is left. */
  newSession(): string | null {
    if (this.executing)
      throw new Fault("PROCESS_ACTIVE", "Cannot begin a new session: a run is in progress");
    const previous_session_id = this.#ledger.status.sessionId;
    this.#ledger.enter({ state: "IDLE", error: null, sessionId: null, sessionProven: false }, [
      event({ type: "session_reset", data: { previous_session_id } }),
    ]);
    return previous_session_id;
  }

  /** Asks the run to end; resolves when it has. */
  async stop(cause: Cause): Promise<void> {
    this.#ledger.run?.stop(cause);
    await this.idle();
  }

  /** Resolves when no run is in progress. */
  async idle(): Promise<void> {
    // A run whose end cannot be logged is over all the same; its error went to whoever stopped it.
    await this.#ledger.run?.ended.catch(() => undefined);
  }

  /** Ends the run, the agent and every subscription, and closes the log. */
  async close(): Promise<void> {
    await this.stop("shutdown");
    await this.#conversation.close();
    await this.feed.close();
  }

  /** Throws what stands against a new run, as far as it can be known beforehand. */
  #admit(): void {
    const { runner, disk, config } = this.#deps;
    if (this.executing)
      throw new Fault("PROCESS_ACTIVE", "Cannot run the prompt: a run is in progress");
    this.#checkDirectory();
    const obstacle = runner.obstacle();
    if (obstacle) throw obstacle;
    if (disk.free() < config.minFreeDisk)
      throw new Fault("RESOURCE_LIMIT", "Cannot run the prompt: the disk is nearly full", {
        resource: "disk",
      });
  }

  /** The directory must still be the one that it was when the server first worked in it. */
  #checkDirectory(): string {
    const found = this.#deps.directories.resolve(this.path);
    const known = this.#identity ?? found;
    const same = found.dev === known.dev && found.ino === known.ino && found.uid === known.uid;
    if (found.path !== this.path || !same)
      throw new Fault(
        "INVALID_PATH",
        `Cannot run the prompt: ${JSON.stringify(this.path)} is not the directory it was`,
      );
    this.#identity = found;
    return found.path;
  }
}
