import { Fault } from "../contract/errors.ts";
import type { Actor, PermissionRequest, Resolution, Scope } from "../contract/messages.ts";
import type { Alerts } from "./alerts.ts";
import { event } from "./feed.ts";
import type { Ledger } from "./ledger.ts";
import {
  permissionRequest,
  type PermissionAnswer,
  refuseBeyond,
  remembered,
  type Remembered,
  toolAnswer,
} from "./permission.ts";
import type { AgentProcess, ToolAnswer, ToolRequest } from "./ports.ts";
import type { ProjectDeps } from "./project.ts";

interface Pending {
  readonly request: PermissionRequest;
  /** The agent that asks, and its own name for the request. */
  readonly agent: AgentProcess;
  readonly requestId: string;
  readonly askedAt: number;
  timer?: Disposable;
}

/** Who answers. */
export interface Answerer {
  readonly device: Actor | null;
  readonly scope: Scope;
}

const maxOutcomes = 256;

/** What the agent asks of people. A request outlives every client, and is answered exactly once. */
export class Approvals {
  readonly #ledger: Ledger;
  readonly #alerts: Alerts;
  readonly #deps: ProjectDeps;
  readonly #pending = new Map<string, Pending>();
  readonly #outcomes = new Map<string, Resolution>();

  constructor(ledger: Ledger, alerts: Alerts, deps: ProjectDeps) {
    this.#ledger = ledger;
    this.#alerts = alerts;
    this.#deps = deps;
  }

  /** Oldest first. */
  get pending(): PermissionRequest[] {
    return Array.from(this.#pending.values(), ({ request }) => request);
  }

  /** The agent asks. Logged and published before anything else; nothing is changed if it throws. */
  ask(agent: AgentProcess, requestId: string, asked: ToolRequest): void {
    const { clock, config, telemetry } = this.#deps;
    const { run, feed } = this.#ledger;
    const request = permissionRequest(asked, {
      execution_id: run?.id ?? crypto.randomUUID(),
      requested_at: clock.now().toISOString(),
    });
    feed.emit(event({ type: "permission_request", data: request }));
    const pending: Pending = { request, agent, requestId, askedAt: clock.monotonic() };
    if (config.permissionTimeout > 0)
      pending.timer = clock.after(config.permissionTimeout, () => this.#expire(pending));
    this.#pending.set(request.permission_id, pending);
    telemetry.log("info", "permission requested", {
      project_id: this.#ledger.id,
      execution_id: request.execution_id,
      permission_id: request.permission_id,
      tool: request.tool_name,
      kind: request.kind,
    });
    this.#changed();
    // A server that goes down has withdrawn it by now.
    if (this.#pending.has(request.permission_id)) this.#alerts.asked(request);
  }

  /** A person answers. The first answer wins; what the person allowed for later comes back. */
  respond(
    answer: PermissionAnswer,
    { device, scope }: Answerer,
  ): { resolution: Resolution; remembered: Remembered | undefined } {
    const pending = this.#pending.get(answer.permission_id);
    if (!pending) throw this.#missing(answer.permission_id);
    const { request } = pending;
    refuseBeyond(scope, request, answer);
    const told = toolAnswer(request, answer);
    const resolution = {
      permission_id: request.permission_id,
      decision: answer.decision,
      ...(device === null ? {} : { device }),
      ...(answer.message ? { reason: answer.message } : {}),
    };
    this.#resolve(pending, resolution, told);
    if (answer.interrupt && this.#ledger.run) this.#ledger.run.interrupted = true;
    return { resolution, remembered: answer.remember ? remembered(request) : undefined };
  }

  /** Takes over what was settled without it, so that a late answer is told the outcome. */
  adopt(outcomes: readonly Resolution[]): void {
    for (const outcome of outcomes) this.#outcomes.set(outcome.permission_id, outcome);
  }

  /** The agent no longer wants to know. */
  withdraw(agent: AgentProcess, requestId: string): void {
    for (const pending of this.#pending.values())
      if (pending.agent === agent && pending.requestId === requestId)
        this.#resolve(pending, withdrawn(pending, "the agent no longer asks"));
  }

  /** Nobody can answer any more; `agent` limits that to what one process has asked. */
  withdrawAll(reason: string, agent?: AgentProcess): void {
    for (const pending of this.#pending.values())
      if (!agent || pending.agent === agent) this.#resolve(pending, withdrawn(pending, reason));
  }

  #resolve(pending: Pending, resolution: Resolution, told?: ToolAnswer): void {
    const { clock, telemetry } = this.#deps;
    const { permission_id, decision } = resolution;
    this.#ledger.feed.emit(event({ type: "permission_resolved", data: resolution }));
    pending.timer?.[Symbol.dispose]();
    this.#pending.delete(permission_id);
    this.#outcomes.set(permission_id, resolution);
    const [oldest] = this.#outcomes.keys();
    if (oldest && this.#outcomes.size > maxOutcomes) this.#outcomes.delete(oldest);
    if (told) pending.agent.answer(pending.requestId, told);
    const waitedMs = clock.monotonic() - pending.askedAt;
    telemetry.count("permissions_total", { decision });
    telemetry.observe("permission_wait_seconds", {}, waitedMs / 1000);
    telemetry.log("info", "permission resolved", {
      project_id: this.#ledger.id,
      permission_id,
      decision,
      device: resolution.device?.id,
      duration_ms: Math.round(waitedMs),
    });
    this.#changed();
  }

  #expire(pending: Pending): void {
    const message = "Nobody answered in time";
    const { permission_id } = pending.request;
    try {
      const resolution = { permission_id, decision: "deny", reason: message } as const;
      this.#resolve(pending, resolution, { behavior: "deny", message });
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      // The disk is full: the request stays open and can still be answered; it is tried again.
      pending.timer = this.#deps.clock.after(1_000, () => this.#expire(pending));
    }
  }

  /** While somebody is asked, the run's time stands still. */
  #changed(): void {
    const { run } = this.#ledger;
    if (this.#pending.size > 0) run?.pause();
    else run?.resume();
    this.#ledger.touch();
  }

  #missing(permission_id: string): Fault {
    const outcome = this.#outcomes.get(permission_id);
    if (outcome)
      return new Fault(
        "PERMISSION_RESOLVED",
        `Cannot answer the request: the answer was ${JSON.stringify(outcome.decision)} already`,
        { ...outcome },
      );
    return new Fault("PERMISSION_NOT_FOUND", "Cannot answer the request: there is none of that id");
  }
}

function withdrawn({ request }: Pending, reason: string): Resolution {
  return { permission_id: request.permission_id, decision: "withdrawn", reason };
}
