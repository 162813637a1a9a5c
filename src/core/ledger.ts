import { Fault } from "../contract/errors.ts";
import type { ProjectState, Prompt } from "../contract/messages.ts";
import type { ResolvedOptions } from "./agent-request.ts";
import { event, type Feed, promptEntry } from "./feed.ts";
import type { LogEntry, ProjectMetadata } from "./ports.ts";
import type { ProjectDeps } from "./project.ts";
import { type Outcome, Run } from "./run.ts";

/** What changes about a project. All of it changes together with a logged `project_state`. */
export interface Status {
  readonly state: ProjectState["state"];
  readonly sessionId: string | null;
  readonly sessionProven: boolean;
  readonly execution: ProjectState["execution"];
  readonly running: ResolvedOptions | null;
  readonly lastActive: string;
  readonly usage: ProjectState["usage"];
  readonly error: ProjectState["error"];
}

/** For how long it is taken for granted that the directory is still there. */
const availableMs = 2_000;

/** What is true of a project now. Nothing changes here that its subscribers do not read. */
export class Ledger {
  readonly id: string;
  readonly path: string;
  readonly feed: Feed;
  readonly #createdAt: string;
  readonly #deps: ProjectDeps;
  readonly #trusted: boolean | null;
  readonly #changed: () => void;
  #status: Status;
  #run: Run | undefined;
  #available = { at: Number.NEGATIVE_INFINITY, value: false };

  constructor(
    metadata: ProjectMetadata,
    feed: Feed,
    { deps, changed }: { deps: ProjectDeps; changed: () => void },
  ) {
    this.id = metadata.id;
    this.path = metadata.path;
    this.feed = feed;
    this.#createdAt = metadata.created_at;
    this.#deps = deps;
    this.#trusted = metadata.trusted;
    this.#changed = changed;
    this.#status = {
      state: metadata.state,
      sessionId: metadata.session_id,
      sessionProven: metadata.session_proven,
      execution: null,
      running: null,
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
    return this.#trusted ?? this.#deps.runner.trusts(this.path);
  }

  get snapshot(): ProjectState {
    return this.#render(this.#status, this.feed.lastSeq);
  }

  get metadata(): ProjectMetadata {
    const { state, sessionId, sessionProven, lastActive, usage, error } = this.#status;
    return {
      version: 1,
      id: this.id,
      path: this.path,
      created_at: this.#createdAt,
      trusted: this.#trusted,
      session_proven: sessionProven,
      state,
      session_id: sessionId,
      last_active: lastActive,
      usage,
      error,
      log: this.feed.log.state(),
    };
  }

  /** Caches what the log says, for the next start; the log itself is what counts. */
  save(): void {
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
    this.save();
    this.#changed();
  }

  /** Notes what the agent's own line, already logged, has said; the next state repeats it. */
  note(change: Partial<Pick<Status, "sessionId" | "sessionProven" | "usage">>): void {
    this.#status = { ...this.#status, ...change };
  }

  /** Logs an accepted prompt and the beginning of its run. */
  begin(prompt: Prompt, running: ResolvedOptions): Run {
    const { clock, config, stats } = this.#deps;
    const startedAt = clock.now();
    const execution = { id: prompt.execution_id, started_at: startedAt.toISOString() };
    const change = { state: "EXECUTING", execution, running, error: null } as const;
    this.enter(change, [promptEntry(prompt)]);
    const limits = { silenceMs: config.executionTimeout, totalMs: config.executionTotalTimeout };
    const run = new Run({ id: execution.id, startedAt, limits }, clock);
    this.#run = run;
    stats.started();
    return run;
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
    this.enter(
      {
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
    this.#report(run, fault, durationMs);
  }

  /** Settles what a server that went down in the middle of a run left behind. */
  recover(): void {
    if (this.#status.state !== "EXECUTING") return;
    const fault = new Fault(
      "EXECUTION_FAILED",
      "Cannot finish the run: the server went down while it was in progress",
      { reason: "server_crash" },
    );
    const { code, message, data } = fault;
    this.enter({ state: "ERROR", error: { code, message } }, [event({ type: "error", data })]);
    this.#deps.telemetry.count("executions_total", { outcome: "interrupted" });
  }

  #report(run: Run, fault: Fault | undefined, durationMs: number): void {
    const { stats, telemetry } = this.#deps;
    const outcome = outcomeOf(run, fault);
    stats.ended(outcome, durationMs);
    if (fault) telemetry.count("errors_total", { code: fault.code });
    telemetry.log(fault ? "warn" : "info", "execution ended", {
      project_id: this.id,
      execution_id: run.id,
      session_id: this.#status.sessionId,
      outcome,
      code: fault?.code,
      reason: fault?.details?.["reason"],
      exit_code: fault?.details?.["exit_code"],
      duration_ms: durationMs,
    });
  }

  #isAvailable(): boolean {
    const now = this.#deps.clock.monotonic();
    if (now - this.#available.at > availableMs)
      this.#available = { at: now, value: this.#deps.directories.available(this.path) };
    return this.#available.value;
  }

  #render(status: Status, lastSeq: number): ProjectState {
    const { config } = this.#deps;
    const { sessionId, running } = status;
    return {
      id: this.id,
      path: this.path,
      state: status.state,
      created_at: this.#createdAt,
      last_active: status.lastActive,
      session_id: sessionId,
      epoch: this.feed.log.state().epoch,
      last_seq: lastSeq,
      trusted: this.trusted,
      available: this.#isAvailable(),
      permission_mode: running?.permissionMode ?? config.claudePermissionMode,
      model: running?.model ?? config.claudeModel,
      resume_command: sessionId && `cd ${shellQuote(this.path)} && claude --resume ${sessionId}`,
      execution: status.execution,
      queued: 0,
      pending_permissions: 0,
      usage: status.usage,
      error: status.error,
    };
  }
}

function outcomeOf(run: Run, fault: Fault | undefined): Outcome {
  if (run.cause === "kill") return "killed";
  if (run.cause === "shutdown") return "interrupted";
  if (run.cause) return "timeout";
  return fault ? "failed" : "success";
}

function shellQuote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
