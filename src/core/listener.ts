import { type PermissionMode, permissionModes } from "../contract/agent-options.ts";
import type { ResolvedOptions } from "./agent-request.ts";
import { readResult, type AgentResult } from "./agent-result.ts";
import type { Approvals } from "./approvals.ts";
import { event } from "./feed.ts";
import type { Ledger } from "./ledger.ts";
import { noticeOf } from "./notice.ts";
import type { AgentEvent, AgentLine, AgentProcess, LogEntry, Telemetry } from "./ports.ts";
import type { Status } from "./status.ts";

/** Lines that are logged with one write; a log file may have so many records too many. */
const maxTalk = 64;

/** What is known of a live agent from what it has said. */
export interface Heard {
  readonly agent: AgentProcess;
  /** What it runs with now. */
  asked: ResolvedOptions;
  /** What it says it has cost so far. */
  costUsd: number;
  /** Whether it has said anything since it was last given a prompt. */
  answered: boolean;
  /** The session that it was to resume does not exist and never did any work: begin afresh. */
  restart: boolean;
  /** It is trying the API again; said once for all attempts in a row. */
  retrying: boolean;
  /** What runs in its background. */
  readonly tasks: Set<string>;
  /** It is on its way out, and its conversation may no longer be the project's. */
  readonly closing: boolean;
}

export interface ListenerHooks {
  readonly turnBegan: () => void;
  readonly turnEnded: () => void;
  readonly tasksChanged: () => void;
}

/** Hears an agent out: every line becomes events, and some of them change the project. */
export class Listener {
  readonly #ledger: Ledger;
  readonly #approvals: Approvals;
  readonly #telemetry: Telemetry;

  constructor(ledger: Ledger, approvals: Approvals, telemetry: Telemetry) {
    this.#ledger = ledger;
    this.#approvals = approvals;
    this.#telemetry = telemetry;
  }

  /**
   * Deals with the first of these lines, or with as many as are mere talk, which go to the log
   * with one write. Gives how many it dealt with; changes nothing if it throws, so that it can be
   * tried again.
   */
  accept(heard: Heard, lines: readonly AgentLine[], hooks: ListenerHooks): number {
    this.#ledger.run?.heard();
    const talk = leadingTalk(lines);
    if (talk.length > 0) {
      this.#ledger.feed.emit(...talk);
      heard.answered = true;
      heard.retrying = false;
      return talk.length;
    }
    const [line] = lines;
    if (line) this.#acceptOne(heard, line, hooks);
    return 1;
  }

  #acceptOne(heard: Heard, line: AgentLine, hooks: ListenerHooks): void {
    switch (line.kind) {
      case "delta":
        heard.answered = true;
        return this.#ledger.feed.delta(line.text);
      case "event":
        return this.#event(heard, line, hooks);
      case "request":
        return this.#approvals.ask(heard.agent, line.requestId, line.request);
      case "withdrawal":
        return this.#approvals.withdraw(heard.agent, line.requestId);
      case "unreadable":
        return this.#ledger.feed.emit(
          event({
            type: "notice",
            data: {
              code: "AGENT_LINE_UNREADABLE",
              message: line.message,
              details: { bytes: line.bytes },
            },
          }),
        );
    }
  }

  #event(heard: Heard, line: { text: string; event: AgentEvent }, hooks: ListenerHooks): void {
    const said = line.event;
    const entry: LogEntry = { direction: "claude", message: line.text };
    const isInit = said.type === "system" && said.subtype === "init";
    if (said.type === "result") return this.#result(heard, entry, { said, hooks });
    const notice = noticeOf(said);
    const isRetry = notice?.code === "API_RETRY";
    const entries = notice && !(isRetry && heard.retrying) ? [entry, noticeEntry(notice)] : [entry];
    if (isInit && !this.#ledger.run) {
      this.#ledger.beginUnsolicited(heard.asked, entries);
      hooks.turnBegan();
    } else this.#ledger.feed.emit(...entries);
    heard.answered = true;
    heard.retrying = isRetry;
    if (isInit && said.session_id && !heard.closing) this.#nameSession(said.session_id);
    if (said.subtype === "status") this.#followMode(heard, said["permissionMode"]);
    if (this.#followTask(heard, said)) hooks.tasksChanged();
  }

  /** A turn is over: the run's, unless it was stopped or the turn was nobody's. */
  #result(
    heard: Heard,
    entry: LogEntry,
    { said, hooks }: { said: AgentEvent; hooks: ListenerHooks },
  ): void {
    const { run, status, feed } = this.#ledger;
    const result = readResult(said);
    const restart = result.sessionMissing && !status.sessionProven;
    const change = this.#consequences(heard, result, said);
    // A result of foreign origin never completes somebody's prompt.
    const completes = run && !run.cause && !restart && !(result.unsolicited && run.solicited);
    if (completes) {
      this.#approvals.withdrawAll("the run ended", heard.agent);
      this.#ledger.finish(run, run.interrupted ? undefined : result.fault, {
        lead: [entry],
        ...change,
      });
    } else {
      feed.emit(...(restart ? [entry, sessionLost] : [entry]));
      this.#ledger.note(change);
    }
    const costUsd = Math.max(0, result.totalCostUsd - heard.costUsd);
    heard.costUsd = result.totalCostUsd;
    heard.restart = restart;
    heard.answered = true;
    heard.retrying = false;
    this.#telemetry.count("execution_cost_usd_total", {}, costUsd);
    this.#telemetry.count("execution_tokens_total", { direction: "input" }, result.inputTokens);
    this.#telemetry.count("execution_tokens_total", { direction: "output" }, result.outputTokens);
    if (completes || !this.#ledger.run) hooks.turnEnded();
  }

  /** What a result means for usage and session. The agent's cost counts since its start. */
  #consequences(heard: Heard, result: AgentResult, said: AgentEvent): Partial<Status> {
    const { usage, sessionId, sessionProven, fork } = this.#ledger.status;
    const counted = {
      ...usage,
      cost_usd: usage.cost_usd + Math.max(0, result.totalCostUsd - heard.costUsd),
      input_tokens: usage.input_tokens + result.inputTokens,
      output_tokens: usage.output_tokens + result.outputTokens,
    };
    if (heard.closing) return { usage: counted };
    if (result.sessionMissing)
      return { usage: counted, sessionId: null, sessionProven: false, fork: false };
    return {
      usage: counted,
      sessionId: said.session_id ?? sessionId,
      sessionProven: sessionProven || !result.fault,
      fork: fork && said.session_id === sessionId,
    };
  }

  #nameSession(sessionId: string): void {
    if (sessionId === this.#ledger.status.sessionId) return;
    this.#ledger.note({ sessionId, sessionProven: false, fork: false });
  }

  /** The agent changes its mode by itself, when a plan is approved for one. */
  #followMode(heard: Heard, mode: unknown): void {
    if (!isMode(mode) || mode === heard.asked.permissionMode) return;
    heard.asked = { ...heard.asked, permissionMode: mode };
    if (this.#ledger.status.running) this.#ledger.note({ running: heard.asked });
  }

  /** Keeps count of what runs in the background; true if that changed. */
  #followTask({ tasks }: Heard, { type, subtype, task_id }: AgentEvent): boolean {
    if (type !== "system" || typeof task_id !== "string") return false;
    if (subtype === "task_started") return tasks.size < tasks.add(task_id).size;
    return subtype === "task_notification" && tasks.delete(task_id);
  }
}

/** What the agent and its tools say to each other has no consequences but to be logged. */
function leadingTalk(lines: readonly AgentLine[]): LogEntry[] {
  const talk: LogEntry[] = [];
  for (const line of lines) {
    const isTalk =
      line.kind === "event" && (line.event.type === "assistant" || line.event.type === "user");
    if (!isTalk || talk.length === maxTalk) break;
    talk.push({ direction: "claude", message: line.text });
  }
  return talk;
}

const noticeEntry = (data: NonNullable<ReturnType<typeof noticeOf>>): LogEntry =>
  event({ type: "notice", data });

const sessionLost = event({
  type: "notice",
  data: {
    code: "SESSION_LOST",
    message: "The agent does not know the conversation any more; the prompt begins a new one",
  },
});

function isMode(value: unknown): value is PermissionMode {
  return permissionModes.some((mode) => mode === value);
}
