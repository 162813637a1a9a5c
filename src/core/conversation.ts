import type { Image } from "../contract/agent-options.ts";
import { Fault } from "../contract/errors.ts";
import { exitFault, readResult } from "./agent-result.ts";
import type { ResolvedOptions } from "./agent-request.ts";
import { event } from "./feed.ts";
import type { Ledger } from "./ledger.ts";
import type { AgentEvent, AgentLine, AgentProcess, LogEntry } from "./ports.ts";
import type { ProjectDeps } from "./project.ts";
import type { Run } from "./run.ts";

/** One agent process. */
interface Live {
  readonly agent: AgentProcess;
  /** Resolves when its last line has been dealt with and nothing of it is left. */
  readonly gone: Promise<void>;
  /** What the agent says it has cost so far. */
  costUsd: number;
  /** The session that it was to resume does not exist and never did any work: begin afresh. */
  restart: boolean;
}

/** How long a failed write waits before it is tried again. */
const storageRetryMs = 250;

/** What is said between a project and its agent: prompts go in, lines come out, turns end. */
export class Conversation {
  readonly #ledger: Ledger;
  readonly #deps: ProjectDeps;
  /** Checks the directory again, just before it is worked in. */
  readonly #directory: () => string;
  #live: Live | undefined;
  #closed = false;

  constructor(ledger: Ledger, deps: ProjectDeps, directory: () => string) {
    this.#ledger = ledger;
    this.#deps = deps;
    this.#directory = directory;
  }

  /** Sees a run through to its end. Never rejects: whatever happens ends as an event and a state. */
  async hold(run: Run, prompt: { text: string; images: readonly Image[] }, asked: ResolvedOptions) {
    let fault: Fault | undefined;
    try {
      fault = await this.#converse(run, prompt, asked);
    } catch (error) {
      fault = error instanceof Fault ? error : this.#bug(run, error);
    }
    if (run.over) return;
    try {
      await this.#persist(
        () => this.#ledger.finish(run, fault, { lead: [] }),
        (failed) => run.fail(failed),
      );
    } catch (error) {
      this.#log("error", "cannot log the end of a run", { execution_id: run.id, error });
    }
  }

  /** Makes a stop that is under way an immediate one. */
  force(): void {
    void this.#live?.agent.stop(true);
  }

  /** Ends the agent; resolves once nothing of it is left. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#live?.agent.close();
    await this.#live?.gone;
  }

  /** Resolves when the agent has answered, or will not answer any more; says what went wrong. */
  async #converse(
    run: Run,
    prompt: { text: string; images: readonly Image[] },
    asked: ResolvedOptions,
  ): Promise<Fault | undefined> {
    await this.#live?.gone;
    await this.#deps.runner.swept(this.#ledger.id);
    for (;;) {
      if (run.cause) return run.fault;
      const live = this.#start(asked);
      live.agent.prompt(prompt.text, prompt.images);
      // oxlint-disable-next-line no-await-in-loop -- a second round only replaces a lost session
      await Promise.race([run.settled, run.stopped, live.gone]);
      if (run.over) return undefined;
      if (run.cause) {
        // oxlint-disable-next-line no-await-in-loop -- returns
        await Promise.all([live.agent.stop(false), live.gone]);
        return run.fault;
      }
      // oxlint-disable-next-line no-await-in-loop -- the process is gone
      if (!live.restart) return exitFault(await live.agent.exit);
    }
  }

  #start({ permissionMode, model, options }: ResolvedOptions): Live {
    const { sessionId } = this.#ledger.status;
    const agent = this.#deps.runner.start({
      projectId: this.#ledger.id,
      cwd: this.#directory(),
      trusted: this.#ledger.trusted,
      permissionMode,
      model,
      options,
      session: { id: sessionId ?? crypto.randomUUID(), resume: sessionId !== null },
    });
    const { promise: gone, resolve } = Promise.withResolvers<void>();
    const live: Live = { agent, gone, costUsd: 0, restart: false };
    this.#live = live;
    void this.#read(live).then(resolve);
    return live;
  }

  /** Reads an agent to its last line. Never rejects. */
  async #read(live: Live): Promise<void> {
    try {
      for await (const batch of live.agent.lines)
        for (const line of batch) {
          try {
            this.#accept(live, line);
          } catch (error) {
            if (!isStorageFault(error)) throw error;
            // oxlint-disable-next-line no-await-in-loop -- lines stay in order
            await this.#persist(() => this.#accept(live, line));
          }
        }
    } catch (error) {
      this.#log("error", "cannot go on reading the agent", { error });
      await live.agent.stop(true);
    }
    await live.agent.close();
    if (this.#live === live) this.#live = undefined;
  }

  /** Deals with one line. Changes nothing if it throws, so that it can be tried again. */
  #accept(live: Live, line: AgentLine): void {
    this.#ledger.run?.heard();
    switch (line.kind) {
      case "delta":
        return this.#ledger.feed.delta(line.text);
      case "event":
        return this.#event(live, line);
      case "request":
        return this.#deny(live, line.requestId, line.request.tool_name);
      case "withdrawal":
        return undefined;
      case "unreadable":
        return this.#notice("AGENT_LINE_UNREADABLE", line.message, { bytes: line.bytes });
    }
  }

  #event(live: Live, line: { text: string; event: AgentEvent }): void {
    const entry: LogEntry = { direction: "claude", message: line.text };
    const { type, subtype, session_id } = line.event;
    if (type === "result") return this.#result(live, entry, line.event);
    this.#ledger.feed.emit(entry);
    if (type !== "system" || subtype !== "init" || !session_id) return;
    if (session_id === this.#ledger.status.sessionId) return;
    this.#ledger.note({ sessionId: session_id, sessionProven: false });
  }

  /** A turn is over: the run's, unless it was stopped or the agent began it by itself. */
  #result(live: Live, entry: LogEntry, line: AgentEvent): void {
    const { run, status, feed } = this.#ledger;
    const result = readResult(line);
    const restart = result.sessionMissing && !status.sessionProven;
    const costUsd = Math.max(0, result.totalCostUsd - live.costUsd);
    const change = {
      usage: {
        ...status.usage,
        cost_usd: status.usage.cost_usd + costUsd,
        input_tokens: status.usage.input_tokens + result.inputTokens,
        output_tokens: status.usage.output_tokens + result.outputTokens,
      },
      sessionId: result.sessionMissing ? null : (line.session_id ?? status.sessionId),
      sessionProven: !result.sessionMissing && (status.sessionProven || !result.fault),
    };
    if (run && !run.cause && !restart && !result.unsolicited)
      this.#ledger.finish(run, result.fault, { lead: [entry], ...change });
    else {
      feed.emit(...(restart ? [entry, sessionLost] : [entry]));
      this.#ledger.note(change);
    }
    live.costUsd = result.totalCostUsd;
    live.restart = restart;
    const { telemetry } = this.#deps;
    telemetry.count("execution_cost_usd_total", {}, costUsd);
    telemetry.count("execution_tokens_total", { direction: "input" }, result.inputTokens);
    telemetry.count("execution_tokens_total", { direction: "output" }, result.outputTokens);
    void live.agent.close();
  }

  /** Nobody can answer yet: a request that hangs would be worse than one that is refused. */
  #deny(live: Live, requestId: string, tool: string): void {
    const text = `The agent asked to use ${tool}; it was refused because nobody can be asked yet`;
    this.#notice("PERMISSION_DENIED", text, { tool });
    const message = "Nobody can be asked for permission here";
    live.agent.answer(requestId, { behavior: "deny", message });
  }

  #notice(code: string, message: string, details: Record<string, unknown>): void {
    this.#ledger.feed.emit(event({ type: "notice", data: { code, message, details } }));
  }

  /** Tries a write until there is room for it. The agent is not read from meanwhile. */
  async #persist(write: () => void, failed?: (fault: Fault) => void): Promise<void> {
    for (;;) {
      try {
        return write();
      } catch (error) {
        if (!isStorageFault(error) || this.#closed) throw error;
        failed?.(error);
        this.#ledger.run?.heard();
        const { promise, resolve } = Promise.withResolvers<void>();
        this.#deps.clock.after(storageRetryMs, resolve);
        // oxlint-disable-next-line no-await-in-loop -- waits for the disk
        await promise;
      }
    }
  }

  #bug(run: Run, error: unknown): Fault {
    const correlation_id = crypto.randomUUID();
    this.#log("error", "a run failed for a reason of ours", {
      execution_id: run.id,
      correlation_id,
      error,
    });
    const text = "Cannot finish the run: the server failed";
    return new Fault("INTERNAL_ERROR", text, { correlation_id });
  }

  #log(level: "warn" | "error", text: string, fields: Record<string, unknown>): void {
    this.#deps.telemetry.log(level, text, { project_id: this.#ledger.id, ...fields });
  }
}

const sessionLost = event({
  type: "notice",
  data: {
    code: "SESSION_LOST",
    message: "The agent does not know the conversation any more; the prompt begins a new one",
  },
});

function isStorageFault(error: unknown): error is Fault {
  return error instanceof Fault && error.code === "STORAGE_ERROR";
}
