import type { AgentOptions, Image, PermissionMode } from "../contract/agent-options.ts";
import { Fault } from "../contract/errors.ts";
import type {
  ExecutionStatus,
  PermissionRequest,
  ProjectState,
  Resolution,
  Session,
} from "../contract/messages.ts";
import type { Config } from "../contract/options.ts";
import { refuseBypass, type ResolvedOptions, resolveOptions } from "./agent-request.ts";
import { Approvals } from "./approvals.ts";
import { Conversation } from "./conversation.ts";
import { Executions } from "./executions.ts";
import { event, type Feed } from "./feed.ts";
import { Ledger } from "./ledger.ts";
import type { PermissionAnswer } from "./permission.ts";
import type {
  AgentRunner,
  Clock,
  Directories,
  Directory,
  Disk,
  ProjectMetadata,
  ProjectStore,
  QueuedPrompt,
  SessionBook,
  Telemetry,
} from "./ports.ts";
import type { Queue } from "./queue.ts";
import { RateLimit } from "./rate-limit.ts";
import type { Cause, Outcome, Run } from "./run.ts";
import type { ExecutionStats } from "./stats.ts";
import { freshSession } from "./status.ts";
import type { Warm } from "./warm.ts";

export interface ProjectDeps {
  readonly config: Config;
  readonly runner: AgentRunner;
  readonly sessions: SessionBook;
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly store: ProjectStore;
  readonly directories: Directories;
  readonly disk: Disk;
  readonly stats: ExecutionStats;
  readonly queue: Queue;
  readonly warm: Warm;
  /** Called after every change that clients see without having joined. */
  readonly changed: (project: Project) => void;
}

export interface ExecuteRequest {
  readonly prompt: string;
  readonly options: AgentOptions;
  readonly images: readonly Image[];
  readonly device: string | null;
  /** Whether the prompt may wait while another runs. */
  readonly queue: boolean;
  /** The client's own name for the request, which makes it safe to send again. */
  readonly execution_id: string | undefined;
}

/** What became of a request to execute. */
export type Accepted =
  | { readonly kind: "started"; readonly state: ProjectState }
  | { readonly kind: "queued"; readonly execution_id: string; readonly position: number }
  | {
      readonly kind: "known";
      readonly execution_id: string;
      readonly status: ExecutionStatus;
      readonly position?: number;
    };

const statusOf = {
  success: "succeeded",
  failed: "failed",
  timeout: "failed",
  interrupted: "failed",
  killed: "killed",
} as const satisfies Record<Outcome, ExecutionStatus>;

/** One directory, its conversation, and at most one running agent. */
export class Project {
  readonly id: string;
  readonly path: string;
  readonly feed: Feed;
  readonly #deps: ProjectDeps;
  readonly #ledger: Ledger;
  readonly #approvals: Approvals;
  readonly #executions: Executions;
  readonly #conversation: Conversation;
  readonly #rate: RateLimit;
  #identity: Directory | undefined;

  constructor(metadata: ProjectMetadata, feed: Feed, deps: ProjectDeps) {
    this.id = metadata.id;
    this.path = metadata.path;
    this.feed = feed;
    this.#deps = deps;
    this.#executions = new Executions(feed, metadata.queued, deps);
    this.#ledger = new Ledger(metadata, feed, {
      deps,
      hooks: {
        queued: () => this.#executions.queued,
        pending: () => this.#approvals.pending,
        changed: () => deps.changed(this),
        ended: (run, outcome) => this.#ended(run, outcome),
      },
    });
    this.#approvals = new Approvals(this.#ledger, deps);
    const directory = () => this.#checkDirectory();
    this.#conversation = new Conversation(this.#ledger, this.#approvals, { deps, directory });
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

  /** Whether the next queued prompt may start. */
  get ready(): boolean {
    return !this.executing && !this.#ledger.status.paused;
  }

  /** Ids of the prompts that wait their turn. */
  get waiting(): readonly string[] {
    return this.#executions.queue.map(({ execution_id }) => execution_id);
  }

  /** Requests that wait for an answer, oldest first. */
  get permissions(): readonly PermissionRequest[] {
    return this.#approvals.pending;
  }

  /** Caches what the log says, for the next start. */
  save(): void {
    this.#ledger.save();
  }

  /** Settles what a server that went down left behind, and gives queued prompts their place. */
  recover(): void {
    this.#ledger.recover();
    if (this.#executions.queued === 0) return;
    for (const entry of this.#executions.queue) this.#deps.queue.add(this, entry);
  }

  /**
   * Accepts a prompt and starts its run or queues it, synchronously. `accepted` is called in
   * between, when nothing can refuse the prompt any more but the disk.
   */
  execute(request: ExecuteRequest, accepted: () => void): Accepted {
    const { clock, queue } = this.#deps;
    const { execution_id = crypto.randomUUID() } = request;
    const known = request.execution_id ? this.#executions.status(execution_id) : undefined;
    if (known) return { kind: "known", execution_id, ...known };
    const waits = this.executing ? request.queue : !queue.free;
    if (this.executing && !waits)
      throw new Fault("PROCESS_ACTIVE", "Cannot run the prompt: a run is in progress");
    const resolved = this.#admit(request);
    if (waits) queue.admit();
    this.#limit();
    accepted();
    const { prompt, options, images, device } = request;
    const entry = { execution_id, prompt, options, images, device };
    if (waits) return this.#enqueue({ ...entry, queued_at: clock.now().toISOString() });
    return { kind: "started", state: this.#begin(entry, resolved) };
  }

  /** Resolves once a queued prompt, its images included, is on the disk. */
  async queueSaved(): Promise<void> {
    await this.#executions.save();
  }

  /** Starts a prompt whose turn it is. Throws while the log cannot be written. */
  startQueued(executionId: string): void {
    const entry = this.#executions.queue.find(({ execution_id }) => execution_id === executionId);
    if (!entry) return;
    let resolved: ResolvedOptions | Fault;
    try {
      resolved = resolveOptions(this.#defaults(entry.options), this.path, this.#deps);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      // What was allowed when it was accepted is not any more.
      resolved = error;
    }
    if (resolved instanceof Fault) return this.cancelQueued(executionId, resolved.message);
    this.#begin(entry, resolved);
  }

  /** Takes a queued prompt back. */
  cancelQueued(execution_id: string, reason: string): void {
    const waiting = this.#executions.queue.some((entry) => entry.execution_id === execution_id);
    if (!waiting)
      throw new Fault(
        "EXECUTION_NOT_FOUND",
        `Cannot cancel the execution: ${JSON.stringify(execution_id)} does not wait in this project`,
      );
    this.feed.emit(event({ type: "execution_cancelled", data: { execution_id, reason } }));
    this.#executions.take(execution_id);
    this.#executions.note(execution_id, "killed");
    this.#deps.queue.remove(execution_id);
    this.#ledger.touch();
  }

  /** Stops the run, or acknowledges an error. Resolves once nothing of the run is left. */
  async kill(force: boolean): Promise<ProjectState> {
    const { run, status } = this.#ledger;
    if (!run && status.state !== "ERROR")
      throw new Fault("PROCESS_NOT_FOUND", "Cannot stop the run: nothing is running");
    if (!run) {
      this.#ledger.enter({ state: "IDLE", error: null, paused: false });
      const state = this.snapshot;
      await this.feed.log.sync();
      return state;
    }
    run.stop("kill");
    this.#withdraw("the run was stopped");
    if (force) this.#conversation.force();
    return await run.ended;
  }

  /** Lets the next prompt begin a new conversation; returns the id of the one that is left. */
  newSession(): string | null {
    this.#refuseActive("begin a new session");
    const previous_session_id = this.#ledger.status.sessionId;
    this.#ledger.enter({ state: "IDLE", error: null, paused: false, ...freshSession }, [
      event({ type: "session_reset", data: { previous_session_id } }),
    ]);
    this.#conversation.retire();
    return previous_session_id;
  }

  /** The agent's sessions in this directory, newest first. */
  async sessions(limit: number): Promise<Session[]> {
    return await this.#deps.sessions.list(this.path, limit);
  }

  /** Goes on with one of those sessions, or with a copy of it. */
  async resumeSession(sessionId: string, fork: boolean): Promise<ProjectState> {
    this.#refuseActive("resume a session");
    const session = await this.#deps.sessions.find(this.path, sessionId);
    this.#refuseActive("resume a session");
    if (!session)
      throw new Fault(
        "SESSION_NOT_FOUND",
        `Cannot resume the session: there is no ${JSON.stringify(sessionId)} in this directory`,
      );
    if (session.open_in_terminal && !fork)
      throw new Fault(
        "SESSION_ACTIVE",
        "Cannot resume the session: it is open in a terminal; close it there, or set fork to go on with a copy",
      );
    this.#ledger.enter({ ...freshSession, sessionId, sessionProven: true, fork });
    this.#conversation.retire();
    return this.snapshot;
  }

  /** Changes mode and model, of a live run at once and of the runs after it; null is the default. */
  async set(change: {
    permissionMode?: PermissionMode | null;
    model?: string | null;
  }): Promise<ProjectState> {
    const { config } = this.#deps;
    const { permissionMode, model } = change;
    if (!config.claudeAllowBypass) refuseBypass({ permission_mode: permissionMode });
    await this.#conversation.set({
      ...(permissionMode === undefined
        ? {}
        : { permissionMode: permissionMode ?? config.claudePermissionMode }),
      ...(model === undefined ? {} : { model: model ?? config.claudeModel }),
    });
    this.#ledger.enter(change);
    return this.snapshot;
  }

  /** Says whether the directory's own settings may take effect, from the next run on. */
  async trust(trusted: boolean): Promise<ProjectState> {
    this.#ledger.enter({ trusted });
    const state = this.snapshot;
    this.#conversation.retire();
    await this.#deps.store.save(this.metadata);
    return state;
  }

  /** A person answers the agent; the first answer wins. */
  respond(answer: PermissionAnswer, device: string | null): Resolution {
    const { resolution, remembered } = this.#approvals.respond(answer, device);
    if (remembered) {
      const { rules, directories } = this.#ledger.status.remembered;
      this.#ledger.note({
        remembered: {
          rules: [...new Set([...rules, ...remembered.rules])],
          directories: [...new Set([...directories, ...remembered.directories])],
        },
      });
      this.save();
    }
    return resolution;
  }

  /** Asks the run to end; resolves when it has. */
  async stop(cause: Cause): Promise<void> {
    this.#ledger.run?.stop(cause);
    this.#withdraw("the server was stopped");
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
  #admit(request: ExecuteRequest): ResolvedOptions {
    const { runner, disk, config } = this.#deps;
    this.#checkDirectory();
    const obstacle = runner.obstacle();
    if (obstacle) throw obstacle;
    if (disk.free() < config.minFreeDisk)
      throw new Fault("RESOURCE_LIMIT", "Cannot run the prompt: the disk is nearly full", {
        resource: "disk",
      });
    return resolveOptions(this.#defaults(request.options), this.path, this.#deps);
  }

  #limit(): void {
    const wait = this.#rate.take();
    if (wait === 0) return;
    throw new Fault("RATE_LIMITED", "Cannot run the prompt: too many prompts in this project", {
      retry_after_ms: wait,
    });
  }

  /** What a run does not say for itself was said by `agent_set`, or is the configuration's. */
  #defaults(options: AgentOptions): AgentOptions {
    const { permissionMode, model } = this.#ledger.status;
    return {
      ...options,
      permission_mode: options.permission_mode ?? permissionMode,
      model: options.model ?? model,
    };
  }

  #enqueue(entry: QueuedPrompt): Accepted {
    const { execution_id, prompt, options, images, device } = entry;
    const position = this.#executions.queued + 1;
    const said = { execution_id, prompt, options, images: images.length, device };
    this.feed.emit(event({ type: "execution_queued", data: { ...said, position } }));
    this.#executions.enqueue(entry);
    this.#deps.queue.add(this, entry);
    this.#ledger.touch();
    return { kind: "queued", execution_id, position };
  }

  #begin(entry: Omit<QueuedPrompt, "queued_at">, resolved: ResolvedOptions): ProjectState {
    const { execution_id, prompt, options, images, device } = entry;
    const said = { execution_id, prompt, options, images: images.length, device };
    const run = this.#ledger.begin(said, resolved);
    this.#executions.take(execution_id);
    this.#executions.note(execution_id, "running");
    this.#deps.telemetry.log("info", "execution started", {
      project_id: this.id,
      execution_id,
      prompt_length: prompt.length,
      images: images.length,
      device,
    });
    void this.#conversation.hold(run, { text: prompt, images }, resolved);
    return this.snapshot;
  }

  #ended(run: Run, outcome: Outcome): void {
    if (run.solicited) this.#executions.note(run.id, statusOf[outcome]);
    this.#deps.queue.schedule();
  }

  /** What cannot be logged now is withdrawn when the agent is gone. */
  #withdraw(reason: string): void {
    try {
      this.#approvals.withdrawAll(reason);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
    }
  }

  #refuseActive(what: string): void {
    if (this.executing) throw new Fault("PROCESS_ACTIVE", `Cannot ${what}: a run is in progress`);
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
