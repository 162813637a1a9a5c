import type { AgentOptions, Image } from "../contract/agent-options.ts";
import { Fault } from "../contract/errors.ts";
import type { Actor, ExecutionStatus, ProjectState } from "../contract/messages.ts";
import { type ResolvedOptions, resolveOptions } from "./agent-request.ts";
import type { Conversation } from "./conversation.ts";
import type { Executions } from "./executions.ts";
import { event } from "./feed.ts";
import type { Ledger } from "./ledger.ts";
import type { Directory, DirectoryIdentity, QueuedPrompt } from "./ports.ts";
import type { Project, ProjectDeps } from "./project.ts";
import { RateLimit } from "./rate-limit.ts";
import type { Run } from "./run.ts";

export interface ExecuteRequest {
  readonly prompt: string;
  readonly options: AgentOptions;
  readonly images: readonly Image[];
  readonly device: Actor | null;
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

/** Takes a project's prompts in: checks them, then runs them at once or lets them wait. */
export class Intake {
  readonly #ledger: Ledger;
  readonly #executions: Executions;
  readonly #deps: ProjectDeps;
  readonly #rate: RateLimit;

  constructor(ledger: Ledger, executions: Executions, deps: ProjectDeps) {
    this.#ledger = ledger;
    this.#executions = executions;
    this.#deps = deps;
    const perMinute = deps.config.executeRate;
    this.#rate = new RateLimit(deps.clock, perMinute / 60, Math.ceil(perMinute / 2));
  }

  /** See `Project.execute`. */
  execute(
    request: ExecuteRequest,
    { project, conversation }: { project: Project; conversation: Conversation },
    accepted: () => void,
  ): Accepted {
    const { clock, queue } = this.#deps;
    const { execution_id = crypto.randomUUID() } = request;
    const known = request.execution_id ? this.#executions.status(execution_id) : undefined;
    if (known) return { kind: "known", execution_id, ...known };
    const executing = this.#ledger.run !== undefined;
    const waits = executing ? request.queue : !queue.free;
    if (executing && !waits)
      throw new Fault("PROCESS_ACTIVE", "Cannot run the prompt: a run is in progress");
    const resolved = this.#admit(request);
    if (waits) queue.admit();
    this.#limit();
    accepted();
    const { prompt, options, images, device } = request;
    const entry = { execution_id, prompt, options, images, device };
    if (waits) return this.#enqueue({ ...entry, queued_at: clock.now().toISOString() }, project);
    return { kind: "started", state: this.#begin(entry, resolved, conversation) };
  }

  /** Starts a prompt whose turn it is. Throws while the log cannot be written. */
  startQueued(executionId: string, conversation: Conversation): void {
    const entry = this.#executions.queue.find(({ execution_id }) => execution_id === executionId);
    if (!entry) return;
    if (entry.device && !this.#deps.admits(entry.device.id))
      return this.cancel(executionId, "its device was revoked");
    let resolved: ResolvedOptions;
    try {
      resolved = this.#resolve(entry.options);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      // What was allowed when it was accepted is not any more.
      return this.cancel(executionId, error.message);
    }
    this.#begin(entry, resolved, conversation);
  }

  /** Takes a queued prompt back. */
  cancel(execution_id: string, reason: string): void {
    const waiting = this.#executions.queue.some((entry) => entry.execution_id === execution_id);
    if (!waiting)
      throw new Fault(
        "EXECUTION_NOT_FOUND",
        `Cannot cancel the execution: ${JSON.stringify(execution_id)} does not wait in this project`,
      );
    this.#ledger.feed.emit(event({ type: "execution_cancelled", data: { execution_id, reason } }));
    this.#executions.take(execution_id);
    this.#executions.note(execution_id, "killed");
    this.#deps.queue.remove(execution_id);
    this.#ledger.touch();
  }

  /**
   * The directory. It may have been made anew, as a checkout is, unless it is trusted; but what stands
   * in its place must not lead elsewhere, nor be somebody else's.
   */
  directory(): Directory {
    const found = this.#found("run the prompt");
    const { path, status } = this.#ledger;
    const { uid, dev, ino, boot_id } = found;
    const known = status.directory ?? found;
    const begin = `Cannot run the prompt: ${JSON.stringify(path)}`;
    if (uid !== known.uid)
      throw new Fault("INVALID_PATH", `${begin} belongs to another account now`);
    const same = dev === known.dev && ino === known.ino;
    if (!same && boot_id === known.boot_id && status.trusted)
      throw new Fault(
        "INVALID_PATH",
        `${begin} is not the directory that was trusted; say again whether it is (project_trust)`,
      );
    if (!status.directory || !same || boot_id !== known.boot_id) {
      this.#ledger.note({ directory: { uid, dev, ino, boot_id } });
      this.#ledger.saveSoon();
    }
    return found;
  }

  /** Which directory it is that a person trusts. */
  identity(): DirectoryIdentity {
    const { path: _, ...identity } = this.#found("trust the directory");
    return identity;
  }

  #found(attempt: string): Directory {
    const { path } = this.#ledger;
    const found = this.#deps.directories.resolve(path);
    if (found.path === path) return found;
    throw new Fault(
      "INVALID_PATH",
      `Cannot ${attempt}: ${JSON.stringify(path)} is, or lies behind, a symbolic link now`,
    );
  }

  /** Throws what stands against a new run, as far as it can be known beforehand. */
  #admit(request: ExecuteRequest): ResolvedOptions {
    const { runner, disk, config } = this.#deps;
    this.directory();
    const obstacle = runner.obstacle();
    if (obstacle) throw obstacle;
    if (disk.free() < config.minFreeDisk)
      throw new Fault("RESOURCE_LIMIT", "Cannot run the prompt: the disk is nearly full", {
        resource: "disk",
      });
    return this.#resolve(request.options);
  }

  #limit(): void {
    const wait = this.#rate.take();
    if (wait === 0) return;
    throw new Fault("RATE_LIMITED", "Cannot run the prompt: too many prompts in this project", {
      retry_after_ms: wait,
    });
  }

  /** What a run does not say for itself was said by `agent_set`, or is the configuration's. */
  #resolve(options: AgentOptions): ResolvedOptions {
    const { permissionMode, model } = this.#ledger.status;
    const asked = {
      ...options,
      permission_mode: options.permission_mode ?? permissionMode,
      model: options.model ?? model,
    };
    return resolveOptions(asked, this.#ledger, this.#deps);
  }

  #enqueue(entry: QueuedPrompt, project: Project): Accepted {
    const { execution_id, prompt, options, images, device } = entry;
    const position = this.#executions.queued + 1;
    const said = { execution_id, prompt, options, images: images.length, device };
    this.#ledger.feed.emit(event({ type: "execution_queued", data: { ...said, position } }));
    this.#executions.enqueue(entry);
    this.#deps.queue.add(project, entry);
    this.#ledger.touch();
    return { kind: "queued", execution_id, position };
  }

  #begin(
    entry: Omit<QueuedPrompt, "queued_at">,
    resolved: ResolvedOptions,
    conversation: Conversation,
  ): ProjectState {
    const { execution_id, prompt, options, images, device } = entry;
    const said = { execution_id, prompt, options, images: images.length, device };
    // It waits no longer when its own beginning is told, which says how many do.
    const waiting = this.#executions.take(execution_id);
    let run: Run;
    try {
      run = this.#ledger.begin(said, resolved);
    } catch (error) {
      if (waiting) this.#executions.putBack(waiting);
      throw error;
    }
    this.#executions.note(execution_id, "running");
    this.#deps.telemetry.log("info", "execution started", {
      project_id: this.#ledger.id,
      execution_id,
      prompt_length: prompt.length,
      images: images.length,
      device: device?.id ?? null,
    });
    void conversation.hold(run, { text: prompt, images });
    return this.#ledger.snapshot;
  }
}
