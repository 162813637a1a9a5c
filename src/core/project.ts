import type { PermissionMode } from "../contract/agent-options.ts";
import { Fault } from "../contract/errors.ts";
import type {
  Actor,
  ExecutionStatus,
  PermissionRequest,
  ProjectState,
  Resolution,
  Session,
} from "../contract/messages.ts";
import type { Config } from "../contract/options.ts";
import { refuseBypass } from "./agent-request.ts";
import { Alerts } from "./alerts.ts";
import { type Answerer, Approvals } from "./approvals.ts";
import { Conversation } from "./conversation.ts";
import { Executions } from "./executions.ts";
import { event, type Feed } from "./feed.ts";
import { type Accepted, type ExecuteRequest, Intake } from "./intake.ts";
import { Ledger } from "./ledger.ts";
import type { PermissionAnswer } from "./permission.ts";
import type {
  AgentRunner,
  Clock,
  Directories,
  Disk,
  Notifications,
  ProjectMetadata,
  ProjectStore,
  SessionBook,
  Telemetry,
} from "./ports.ts";
import type { Queue } from "./queue.ts";
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
  readonly notifications: Notifications;
  /** Whether what a device has asked for may still be done. */
  readonly admits: (deviceId: string) => boolean;
  readonly stats: ExecutionStats;
  readonly queue: Queue;
  readonly warm: Warm;
  /** Whether what a directory brings along may take effect, by its project or the CLI's own record. */
  readonly trusts: (path: string) => boolean;
  /** Called after every change that clients see without having joined. */
  readonly changed: (project: Project) => void;
}

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
  readonly #alerts: Alerts;
  readonly #approvals: Approvals;
  readonly #executions: Executions;
  readonly #conversation: Conversation;
  readonly #intake: Intake;
  /** A session is being looked up; until it is found, nothing may begin in another one. */
  #resuming = false;
  #recovered = false;

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
    this.#alerts = new Alerts(feed, metadata.path, deps.notifications);
    this.#approvals = new Approvals(this.#ledger, this.#alerts, deps);
    this.#intake = new Intake(this.#ledger, this.#executions, deps);
    const directory = () => this.#intake.directory();
    this.#conversation = new Conversation(this.#ledger, this.#approvals, { deps, directory });
  }

  get snapshot(): ProjectState {
    return this.#ledger.snapshot;
  }

  /** The snapshot as JSON text. */
  get json(): string {
    return this.#ledger.json;
  }

  get metadata(): ProjectMetadata {
    return this.#ledger.metadata;
  }

  get executing(): boolean {
    return this.#ledger.run !== undefined;
  }

  /** Whether the next queued prompt may start. */
  get ready(): boolean {
    return !this.executing && !this.#resuming && !this.#ledger.status.paused;
  }

  /** Ids of the prompts that wait their turn. */
  get waiting(): readonly string[] {
    return this.#executions.queue.map(({ execution_id }) => execution_id);
  }

  /** Requests that wait for an answer, oldest first. */
  get permissions(): readonly PermissionRequest[] {
    return this.#approvals.pending;
  }

  /** Resolves once what was changed is on the disk, also what only the metadata holds. */
  async saved(): Promise<void> {
    await Promise.all([this.feed.log.sync(), this.#deps.store.save(this.metadata)]);
  }

  /** Whether a directory, this one or one in it, is trusted as what it was when that was said. */
  trusts(path: string): boolean {
    try {
      this.#intake.directory();
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      return false;
    }
    return this.#ledger.trusts(path);
  }

  /** Tells everybody when the directory has gone, or has come back. */
  survey(): void {
    this.#ledger.survey();
  }

  /** Caches what the log says, for the next start. */
  save(): void {
    this.#ledger.save();
  }

  /**
   * Settles what a server that went down left behind, and gives queued prompts their place. Throws
   * while that cannot be logged; nothing new may begin before.
   */
  recover(): void {
    if (this.#recovered) return;
    const interrupted = this.#ledger.status.state === "EXECUTING";
    const resolved = this.#ledger.recover();
    this.#recovered = true;
    this.#approvals.adopt(resolved);
    if (interrupted) this.#alerts.ended("interrupted", false);
    if (this.#executions.queued === 0) return;
    for (const entry of this.#executions.queue) this.#deps.queue.add(this, entry);
  }

  /**
   * Accepts a prompt and starts its run or queues it, synchronously. `accepted` is called in
   * between, when nothing can refuse the prompt any more but the disk.
   */
  execute(request: ExecuteRequest, accepted: () => void): Accepted {
    this.recover();
    this.#refuseWhileResuming("run the prompt");
    const whose = { project: this, conversation: this.#conversation };
    return this.#intake.execute(request, whose, accepted);
  }

  /** Resolves once a queued prompt, its images included, is on the disk. */
  async queueSaved(): Promise<void> {
    await this.#executions.save();
  }

  /** Starts a prompt whose turn it is. Throws while the log cannot be written. */
  startQueued(executionId: string): void {
    this.#intake.startQueued(executionId, this.#conversation);
  }

  /** Takes a queued prompt back. */
  cancelQueued(executionId: string, reason: string): void {
    this.#intake.cancel(executionId, reason);
  }

  /** Stops the run, or acknowledges an error. Resolves once nothing of the run is left. */
  async kill(force: boolean): Promise<ProjectState> {
    this.recover();
    const { run, status } = this.#ledger;
    if (!run && status.state !== "ERROR" && !this.#conversation.busy)
      throw new Fault("PROCESS_NOT_FOUND", "Cannot stop the run: nothing is running");
    if (!run) {
      if (status.state === "ERROR")
        this.#ledger.enter({ state: "IDLE", error: null, paused: false });
      const state = this.snapshot;
      await Promise.all([this.#conversation.end(force), this.feed.log.sync()]);
      return state;
    }
    run.stop("kill");
    this.#withdraw("the run was stopped");
    if (force) this.#conversation.force();
    return await run.ended;
  }

  /** Drops what a device has asked for. Resolves once nothing of it is left. */
  async forsake(deviceId: string, keepRun: boolean): Promise<void> {
    // What runs goes first: on a full disk the rest, which has to be logged, fails.
    const dismissed = keepRun ? undefined : this.#dismiss(deviceId);
    try {
      for (const { execution_id, device } of this.#executions.queue)
        if (device?.id === deviceId) this.cancelQueued(execution_id, "its device was revoked");
    } finally {
      await dismissed;
    }
  }

  /** Lets the next prompt begin a new conversation; returns the id of the one that is left. */
  newSession(): string | null {
    this.recover();
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

  /** Goes on with one of those sessions, or with a copy of it, for a device. */
  async resumeSession(
    sessionId: string,
    fork: boolean,
    device: Actor | null,
  ): Promise<ProjectState> {
    this.#refuseActive("resume a session");
    const session = await this.#lookUp(sessionId);
    // It took a while, in which the device may have been shut out.
    if (device && !this.#deps.admits(device.id))
      throw new Fault("UNAUTHORIZED", "Cannot resume the session: this device was revoked");
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
    const { status } = this.#ledger;
    this.#ledger.enter(change);
    try {
      await this.#conversation.set({
        ...(permissionMode === undefined
          ? {}
          : { permissionMode: permissionMode ?? config.claudePermissionMode }),
        ...(model === undefined ? {} : { model: model ?? config.claudeModel }),
      });
    } catch (error) {
      const { permissionMode: mode, model: before } = status;
      this.#ledger.enter({ permissionMode: mode, model: before });
      throw error;
    }
    // The live run has it now too, which its subscribers should see.
    if (this.executing) this.#ledger.enter({});
    return this.snapshot;
  }

  /** Says whether the directory's own settings may take effect, from the next run on. */
  async trust(trusted: boolean): Promise<ProjectState> {
    const directory = trusted ? this.#intake.identity() : this.#ledger.status.directory;
    this.#ledger.enter({ trusted, directory });
    const state = this.snapshot;
    this.#conversation.retire();
    await this.#deps.store.save(this.metadata);
    return state;
  }

  /** A person answers the agent; the first answer wins. */
  respond(answer: PermissionAnswer, by: Answerer): Resolution {
    const { resolution, remembered } = this.#approvals.respond(answer, by);
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

  /** Ends the run and the agent by force, at once. */
  async abandon(): Promise<void> {
    const stopped = this.stop("shutdown");
    this.#conversation.force();
    await stopped;
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
    // The agent may have begun a turn by itself on its way out.
    await this.idle();
    await this.#executions.flush();
    await this.feed.close();
    this.#ledger.close();
  }

  /** Ends what works for a device: a run of its own, or one that its agent has begun by itself. */
  async #dismiss(deviceId: string): Promise<void> {
    const { run } = this.#ledger;
    if (run?.deviceId !== deviceId && !this.#conversation.serves(deviceId)) return;
    if (run) await this.kill(false);
    else await this.#conversation.end(false);
  }

  #ended(run: Run, outcome: Outcome): void {
    if (run.solicited) this.#executions.note(run.id, statusOf[outcome]);
    this.#alerts.ended(outcome, this.#executions.queued > 0);
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

  async #lookUp(sessionId: string): Promise<Session | undefined> {
    this.#resuming = true;
    try {
      return await this.#deps.sessions.find(this.path, sessionId);
    } finally {
      this.#resuming = false;
    }
  }

  #refuseWhileResuming(what: string): void {
    if (!this.#resuming) return;
    throw new Fault("PROCESS_ACTIVE", `Cannot ${what}: a session is being resumed`);
  }

  #refuseActive(what: string): void {
    this.#refuseWhileResuming(what);
    if (this.executing) throw new Fault("PROCESS_ACTIVE", `Cannot ${what}: a run is in progress`);
  }
}
