import type { Agent } from "./agent.ts";
import { deltasOf, usage, type Block, type OpenMessage } from "./printer.ts";
import type { Fields } from "./record.ts";
import type { Answer } from "./requests.ts";
import { resultLine, type Ending } from "./result.ts";

const PRICE_IN = 5e-6;
const PRICE_OUT = 25e-6;
const REJECTED =
  "The user doesn't want to proceed with this tool use. The tool use was rejected (eg. if it was a file edit, the new_string was NOT written to the file). STOP what you are doing and wait for the user to tell you how to proceed.";

/** The turn was interrupted from outside, or by a denial that says so. */
export class Interrupted extends Error {}

/** A tool call of the model. */
export interface Call {
  readonly id: string;
  readonly name: string;
  readonly input: Fields;
}

/** One turn: what the model says and does between a user message and its `result`. */
export class Turn {
  readonly agent: Agent;
  readonly #stop = new AbortController();
  readonly #began = performance.now();
  readonly #denials: Fields[] = [];
  readonly #pending: Call[] = [];
  #lead: Block[] = [];
  #partial: { message: OpenMessage; text: string } | undefined;
  #userLines = 1;
  #calls = 0;
  #outputTokens = 0;
  #said: string | undefined;
  #lastOutcome: string | undefined;
  #stopReason: string | null = null;
  #ending: Ending | undefined;

  constructor(agent: Agent) {
    this.agent = agent;
  }

  /** Whether nothing more is to be done in this turn. */
  get over(): boolean {
    return this.#ending !== undefined;
  }

  /** Whether a tool runs or waits for permission. */
  get inTool(): boolean {
    return this.#pending.length > 0;
  }

  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  interrupt(): void {
    this.#stop.abort(new Interrupted());
  }

  /** Ends the turn in another way than with what was said last. */
  end(ending: Ending): void {
    this.#ending ??= ending;
  }

  /** Waits, unless the turn is interrupted meanwhile. Without an argument it waits for that. */
  async wait(ms?: number): Promise<void> {
    this.signal.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms ?? 2 ** 31 - 1);
    const abort = (): void => reject(new Interrupted());
    this.signal.addEventListener("abort", abort, { once: true });
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      this.signal.removeEventListener("abort", abort);
    }
  }

  /** A block that goes in front of the next message, such as thinking. */
  lead(block: Block): void {
    this.#lead.push(block);
  }

  /** One message of the model with one text. */
  async say(text: string, pieces?: { texts: readonly string[]; delayMs: number }): Promise<void> {
    const message = await this.#open();
    const block = { type: "text", text } as const;
    await this.agent.printer.start(message, block);
    this.#partial = { message, text: "" };
    if (pieces) {
      for (const piece of pieces.texts) {
        if (pieces.delayMs > 0) await this.wait(pieces.delayMs);
        this.signal.throwIfAborted();
        this.#partial.text += piece;
        await this.agent.printer.delta(message, { type: "text_delta", text: piece });
      }
    } else await this.#deltas(message, block);
    this.#partial = undefined;
    await this.agent.printer.finish(message, block);
    await this.#close(message, "end_turn", [block]);
    this.#said = text;
  }

  /** One message of the model with one tool call per entry; they count as running from here on. */
  async call(...calls: readonly Call[]): Promise<void> {
    const message = await this.#open();
    const blocks = calls.map((call): Block => ({ type: "tool_use", ...call }));
    for (const block of blocks) {
      await this.agent.printer.start(message, block);
      await this.#deltas(message, block);
      await this.agent.printer.finish(message, block);
    }
    this.#pending.push(...calls);
    await this.#close(message, "tool_use", blocks);
  }

  /** Asks whether a call may run. An interrupting denial stops the turn. */
  async ask(call: Call, extra: Fields = {}): Promise<Answer> {
    const suggestions = this.agent.permissions.suggestions(call.name, call.input);
    const { description, file_path: path } = call.input;
    const about = typeof description === "string" ? description : path;
    const answer = await this.agent.requests.ask({
      tool_name: call.name,
      display_name: call.name,
      input: call.input,
      ...(typeof about === "string" ? { description: about } : {}),
      ...(suggestions.length > 0 ? { permission_suggestions: suggestions } : {}),
      tool_use_id: call.id,
      ...extra,
    });
    if (answer.kind === "allow") {
      const mode = this.agent.permissions.update(answer.updates);
      if (mode !== undefined) await this.agent.reportMode();
      return answer;
    }
    this.deny(call);
    if (answer.kind === "deny" && answer.interrupt) {
      this.agent.interrupt();
      throw new Interrupted();
    }
    return answer;
  }

  deny(call: Call): void {
    const { id, name, input } = call;
    this.#denials.push({ tool_name: name, tool_use_id: id, tool_input: input });
  }

  /** The outcome of a call, as the model is told of it. */
  async outcome(call: Call, content: string, detail?: Fields): Promise<void> {
    const at = this.#pending.findIndex((pending) => pending.id === call.id);
    if (at >= 0) this.#pending.splice(at, 1);
    this.#said = undefined;
    await this.#user(
      [
        {
          type: "tool_result",
          content,
          ...(detail ? {} : { is_error: true }),
          tool_use_id: call.id,
        },
      ],
      detail ?? `Error: ${content}`,
    );
    this.#lastOutcome = content;
  }

  /** Says what is still to be said, then prints the result. */
  async finish(extra: Fields): Promise<void> {
    if (!this.#ending && (this.#said === undefined || this.#lead.length > 0)) {
      await this.say(this.#lastOutcome === undefined ? "ok" : `done: ${this.#lastOutcome}`);
    }
    await this.#result(
      this.#ending ?? {
        subtype: "success",
        isError: false,
        text: this.#said ?? "",
        stopReason: this.#stopReason,
        terminalReason: "completed",
        apiErrorStatus: null,
      },
      extra,
    );
  }

  /** What the CLI prints after an interrupt: what was left open, and an error result. */
  async abort(extra: Fields): Promise<void> {
    const tools = this.#pending.splice(0);
    for (const call of tools) {
      await this.#user(
        [{ type: "tool_result", content: REJECTED, is_error: true, tool_use_id: call.id }],
        "User rejected tool use",
      );
    }
    if (this.#partial?.text) {
      const { message, text } = this.#partial;
      await this.agent.printer.finish(message, { type: "text", text });
    }
    const aborted = tools.length > 0 ? "tools" : "streaming";
    const text = `[Request interrupted by user${tools.length > 0 ? " for tool use" : ""}]`;
    await this.#user([{ type: "text", text }]);
    const stopReason = tools.length > 0 ? "tool_use" : null;
    await this.#result(
      {
        subtype: "error_during_execution",
        isError: true,
        errors: [
          `[ede_diagnostic] result_type=user last_content_type=n/a stop_reason=${stopReason}`,
        ],
        stopReason,
        terminalReason: `aborted_${aborted}`,
      },
      extra,
    );
  }

  async #open(): Promise<OpenMessage> {
    this.signal.throwIfAborted();
    const { printer, model, partial } = this.agent;
    if (partial) await printer.system("status", { status: "requesting" });
    const message = await printer.open(model.replace(/\[.*$/, ""));
    for (const block of this.#lead.splice(0)) {
      await printer.start(message, block);
      await this.#deltas(message, block);
      await printer.finish(message, block);
    }
    return message;
  }

  async #deltas(message: OpenMessage, block: Block): Promise<void> {
    const { printer, partial } = this.agent;
    if (!partial) return;
    for (const [index, delta] of deltasOf(block).entries()) {
      this.signal.throwIfAborted();
      if (block.type === "thinking") {
        await printer.system("thinking_tokens", {
          estimated_tokens: index + 1,
          estimated_tokens_delta: 1,
        });
      }
      await printer.delta(message, delta);
    }
  }

  async #close(message: OpenMessage, stop: string, blocks: readonly Block[]): Promise<void> {
    const tokens = Math.max(1, Math.ceil(JSON.stringify(blocks).length / 4));
    this.#calls += 1;
    this.#outputTokens += tokens;
    this.#stopReason = stop;
    this.agent.spend(10 * PRICE_IN + tokens * PRICE_OUT, tokens);
    await this.agent.printer.close(stop, tokens);
    this.agent.session.append("assistant", crypto.randomUUID(), {
      id: message.id,
      role: "assistant",
      content: blocks,
    });
  }

  async #user(content: readonly Fields[], outcome?: unknown): Promise<void> {
    this.#userLines += 1;
    await this.agent.printer.line({
      type: "user",
      message: { role: "user", content },
      parent_tool_use_id: null,
      timestamp: new Date().toISOString(),
      ...(outcome === undefined ? {} : { tool_use_result: outcome }),
    });
  }

  #result(ending: Ending, extra: Fields): Promise<void> {
    const { agent } = this;
    agent.failed = ending.isError;
    const facts = {
      durationMs: Math.round(performance.now() - this.#began),
      turns: this.#userLines,
      usage: usage(10 * this.#calls, this.#outputTokens),
      denials: this.#denials,
      cost: agent.cost,
      modelUsage: agent.modelUsage(),
    };
    return agent.printer.line({ ...resultLine(ending, facts), ...extra });
  }
}
