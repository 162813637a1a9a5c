import { Fault } from "../contract/errors.ts";
import type { PermissionRequest, ProjectState, Prompt, Resolution } from "../contract/messages.ts";
import type { ResolvedOptions } from "./agent-request.ts";
import { event, type Feed, promptEntry } from "./feed.ts";
import type { LogEntry, ProjectMetadata } from "./ports.ts";
import type { ProjectDeps } from "./project.ts";
import { type Outcome, Run } from "./run.ts";
import { describe, type Status } from "./status.ts";

/** What else there is to know and to do about a project. */
export interface LedgerHooks {
  readonly queued: () => number;
  readonly pending: () => readonly PermissionRequest[];
  /** Called after every change. */
  readonly changed: () => void;
  readonly ended: (run: Run, outcome: Outcome) => void;
}

/** For how long it is taken for granted what the machine says about the directory. */
const surveyMs = 2_000;
/** Changes come in bursts, and nobody should wait for a cache. */
const saveAfterMs = 100;
/** Reasons of a failed run after which the next one would most likely fail too. */
const brokenAgent = new Set(["no_result", "not_logged_in", "server_crash", "shutdown"]);

/** What is true of a project now. Nothing changes here that its subscribers do not read. */
export class Ledger {
  readonly id: string;
  readonly path: string;
  readonly feed: Feed;
  readonly #createdAt: string;
  readonly #deps: ProjectDeps;
  readonly #hooks: LedgerHooks;
  /** Requests that were open when the server went down. */
  readonly #lost: readonly string[];
  #status: Status;
  #run: Run | undefined;
  #saving: Disposable | undefined;
  /** What was said last about whether the directory is there. */
  #announced: boolean | undefined;
  #survey = { at: Number.NEGATIVE_INFINITY, available: false, trusts: false };
  /** The snapshot as JSON, for as long as nothing in it has changed. */
  #json: { status: Status; key: string; text: string } | undefined;

  constructor(
    metadata: ProjectMetadata,
    feed: Feed,
    { deps, hooks }: { deps: ProjectDeps; hooks: LedgerHooks },
  ) {
    this.id = metadata.id;
    this.path = metadata.path;
    this.feed = feed;
    this.#createdAt = metadata.created_at;
    this.#deps = deps;
    this.#hooks = hooks;
    this.#lost = metadata.open_permissions;
    this.#status = {
      state: metadata.state,
      execution: null,
      running: null,
      sessionId: metadata.session_id,
      sessionProven: metadata.session_proven,
      fork: metadata.fork,
      remembered: metadata.remembered,
      directory: metadata.directory,
      trusted: metadata.trusted,
      permissionMode: metadata.permission_mode,
      model: metadata.model,
      paused: metadata.paused,
      lastActive: metadata.last_active,
      usage: metadata.usage,
      error: metadata.error,
    };
  }

  get status(): Status {
    return this.#status;
  }

  /** The run in progress. */
  get run(): Run | undefined {
    return this.#run;
  }

  get trusted(): boolean {
    return this.trusts(this.path);
  }

  /** Whether the directory, or one in it, is trusted: what a person has said here goes first. */
  trusts(path: string): boolean {
    return this.#status.trusted ?? this.#deps.runner.trusts(path);
  }

  /** The snapshot as JSON: a list of a hundred projects is asked for often and changes little. */
  get json(): string {
    const { available, trusts } = this.#machine();
    const { last_seq, epoch } = this.feed.log.state();
    const counts = `${this.#hooks.queued()} ${this.#hooks.pending().length}`;
    const key = `${last_seq} ${epoch} ${available} ${trusts} ${counts}`;
    const { status } = this;
    if (this.#json?.key !== key || this.#json.status !== status)
      this.#json = { status, key, text: JSON.stringify(this.snapshot) };
    return this.#json.text;
  }

  get snapshot(): ProjectState {
    return this.#render(this.#status, this.feed.lastSeq);
  }

  get metadata(): ProjectMetadata {
    const status = this.#status;
    return {
      version: 1,
      id: this.id,
      path: this.path,
      directory: status.directory,
      created_at: this.#createdAt,
      trusted: status.trusted,
      permission_mode: status.permissionMode,
      model: status.model,
      session_proven: status.sessionProven,
      fork: status.fork,
      remembered: status.remembered,
      open_permissions: this.#hooks.pending().map(({ permission_id }) => permission_id),
      queued: this.#hooks.queued(),
      paused: status.paused,
      state: status.state,
      session_id: status.sessionId,
      last_active: status.lastActive,
      usage: status.usage,
      error: status.error,
      log: this.feed.log.state(),
    };
  }

  /** Caches what the log says, for the next start; the log itself is what counts. */
  saveSoon(): void {
    this.#saving ??= this.#deps.clock.after(saveAfterMs, () => this.save());
  }

  /** No save is left to be made. */
  close(): void {
    this.#saving?.[Symbol.dispose]();
  }

  /** As `saveSoon`, but now. */
  save(): void {
    this.close();
    this.#saving = undefined;
    this.#deps.store.save(this.metadata).catch((error: unknown) => {
      this.#deps.telemetry.log("warn", "cannot save project metadata", {
        project_id: this.id,
        error,
      });
    });
  }

  /** Changes the status and logs it as `project_state` behind `lead`: all of it, or it throws. */
  enter(change: Partial<Status>, lead: readonly LogEntry[] = []): void {
    const lastActive = this.#deps.clock.now().toISOString();
    const next: Status = { ...this.#status, lastActive, ...change };
    const seq = this.feed.lastSeq + lead.length + 1;
    this.feed.emit(...lead, event({ type: "project_state", data: this.#render(next, seq) }));
    this.#status = next;
    this.touch();
  }

  /** Notes what a line already logged has said; the next state repeats it. */
  note(change: Partial<Status>): void {
    this.#status = { ...this.#status, ...change };
  }

  /** Something that every client sees has changed. */
  touch(): void {
    this.saveSoon();
    this.#hooks.changed();
  }

  /** Logs an accepted prompt and the beginning of its run. */
  begin(prompt: Prompt, running: ResolvedOptions): Run {
    const change = { running, error: null, paused: false };
    return this.#begin(prompt.execution_id, change, {
      lead: [promptEntry(prompt)],
      solicited: true,
      deviceId: prompt.device?.id ?? null,
    });
  }

  /** Logs that the agent has begun a turn by itself, behind `lead`. */
  beginUnsolicited(running: ResolvedOptions, lead: readonly LogEntry[]): Run {
    return this.#begin(
      crypto.randomUUID(),
      { running },
      {
        lead,
        solicited: false,
        deviceId: null,
      },
    );
  }

  /** Logs the end of a run behind `lead`, which led to it: all of it, or it throws. */
  finish(
    run: Run,
    fault: Fault | undefined,
    turn: { lead: readonly LogEntry[] } & Partial<Status>,
  ) {
    const { lead, ...change } = turn;
    const durationMs = run.durationMs;
    const usage = change.usage ?? this.#status.usage;
    const entries = fault ? [...lead, event({ type: "error", data: fault.data })] : lead;
    const outcome = outcomeOf(run, fault);
    const broken = fault?.code === "CLAUDE_NOT_FOUND" || brokenAgent.has(reasonOf(fault));
    this.enter(
      {
        paused: broken || outcome === "killed",
        ...change,
        state: fault ? "ERROR" : "IDLE",
        error: fault ? { code: fault.code, message: fault.message } : null,
        execution: null,
        running: null,
        usage: { ...usage, runs: usage.runs + 1, duration_ms: usage.duration_ms + durationMs },
      },
      entries,
    );
    this.#run = undefined;
    // The end of a run is on the disk before anybody who waits for it is told.
    const state = this.snapshot;
    run.settle(this.feed.log.sync().then(() => state));
    this.#report(run, { fault, outcome, durationMs });
  }

  /**
   * Settles what a server that went down in the middle of a run left behind; gives what became of
   * the requests that were open.
   */
  recover(): readonly Resolution[] {
    const reason = "the server went down";
    const lost = this.#lost.map(
      (permission_id) => ({ permission_id, decision: "withdrawn", reason }) as const,
    );
    const withdrawn = lost.map((data) => event({ type: "permission_resolved", data }));
    if (this.#status.state !== "EXECUTING") {
      if (withdrawn.length > 0) this.feed.emit(...withdrawn);
      return lost;
    }
    const fault = new Fault(
      "EXECUTION_FAILED",
      "Cannot finish the run: the server went down while it was in progress",
      { reason: "server_crash" },
    );
    const { code, message, data } = fault;
    this.enter({ state: "ERROR", error: { code, message }, paused: true }, [
      ...withdrawn,
      event({ type: "error", data }),
    ]);
    this.#deps.telemetry.count("executions_total", { outcome: "interrupted" });
    return lost;
  }

  #begin(
    id: string,
    change: Partial<Status>,
    from: { lead: readonly LogEntry[]; solicited: boolean; deviceId: string | null },
  ): Run {
    const { clock, config, stats } = this.#deps;
    const execution = { id, started_at: clock.now().toISOString() };
    const { lead, solicited, deviceId } = from;
    this.enter({ ...change, state: "EXECUTING", execution }, lead);
    const limits = { silenceMs: config.executionTimeout, totalMs: config.executionTotalTimeout };
    const run = new Run({ id, solicited, deviceId, limits }, clock);
    this.#run = run;
    stats.started();
    return run;
  }

  #report(run: Run, end: { fault: Fault | undefined; outcome: Outcome; durationMs: number }): void {
    const { stats, telemetry } = this.#deps;
    const { fault, outcome, durationMs } = end;
    stats.ended(outcome, durationMs);
    this.#hooks.ended(run, outcome);
    if (fault) telemetry.count("errors_total", { code: fault.code });
    telemetry.log(fault ? "warn" : "info", "execution ended", {
      project_id: this.id,
      execution_id: run.id,
      session_id: this.#status.sessionId,
      outcome,
      code: fault?.code,
      reason: reasonOf(fault),
      exit_code: fault?.details?.["exit_code"],
      duration_ms: durationMs,
    });
  }

  /** Tells everybody when the directory has gone, or has come back. */
  survey(): void {
    const { available } = this.#machine();
    if (available === this.#announced) return;
    this.#announced = available;
    this.#hooks.changed();
  }

  #machine(): { available: boolean; trusts: boolean } {
    const { clock, directories, runner } = this.#deps;
    const now = clock.monotonic();
    if (now - this.#survey.at > surveyMs)
      this.#survey = {
        at: now,
        available: directories.available(this.path),
        trusts: runner.trusts(this.path),
      };
    this.#announced ??= this.#survey.available;
    return this.#survey;
  }

  #render(status: Status, lastSeq: number): ProjectState {
    const { config } = this.#deps;
    const { available, trusts } = this.#machine();
    return describe(status, {
      id: this.id,
      path: this.path,
      created_at: this.#createdAt,
      epoch: this.feed.log.state().epoch,
      last_seq: lastSeq,
      trusted: status.trusted ?? trusts,
      available,
      queued: this.#hooks.queued(),
      pending_permissions: this.#hooks.pending().length,
      permission_mode: config.claudePermissionMode,
      model: config.claudeModel,
    });
  }
}

function outcomeOf(run: Run, fault: Fault | undefined): Outcome {
  if (run.cause === "kill" || run.interrupted) return "killed";
  if (run.cause === "shutdown") return "interrupted";
  if (run.cause) return "timeout";
  return fault ? "failed" : "success";
}

function reasonOf(fault: Fault | undefined): string {
  const reason = fault?.details?.["reason"];
  return typeof reason === "string" ? reason : "";
}
