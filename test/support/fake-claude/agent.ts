import type { Arguments } from "./arguments.ts";
import { control } from "./controls.ts";
import { introduction } from "./identity.ts";
import { stdinLines, textOf } from "./input.ts";
import { Permissions } from "./permissions.ts";
import { Printer } from "./printer.ts";
import { isFields, record, type Fields } from "./record.ts";
import { Requests } from "./requests.ts";
import { perform, readScript, type Script } from "./script.ts";
import { chooseSession, SessionFile } from "./sessions.ts";
import { Interrupted, Turn } from "./turn.ts";

const DEFAULT_MODEL = "claude-opus-4-8[1m]";
const TASK_GRACE_MS = 5_000;
const SIGNAL_CODES = { SIGHUP: 129, SIGTERM: 143 } as const;

/** A background task: a timer that starts a turn of its own when it ends. */
interface Task {
  readonly toolUseId: string;
  readonly timer: Timer;
}

/** The process: its session, its input, and what outlives a turn. */
export class Agent {
  readonly given: Arguments;
  readonly printer: Printer;
  readonly permissions: Permissions;
  readonly requests: Requests;
  /** What scripts may switch on for the rest of the process's life. */
  readonly quirks = { ignoreInterrupt: false, stubborn: false, mute: false, overBudget: false };
  readonly tasks = new Map<string, Task>();
  /** Run once the next result is out. */
  readonly afterResult: (() => void | Promise<void>)[] = [];
  readonly partial: boolean;
  model: string;
  cost = 0;
  failed = false;
  session: SessionFile;

  readonly #seen: Set<string>;
  readonly #queue: { script: Script; origin?: Fields }[] = [];
  #outputTokens = 0;
  #calls = 0;
  #turn: Turn | undefined;
  #inputEnded = false;

  constructor(given: Arguments) {
    this.given = given;
    this.session = chooseSession(given);
    this.#seen = new Set(this.session.userMessages());
    this.model = given.value("--model") || DEFAULT_MODEL;
    this.partial = given.has("--include-partial-messages");
    this.printer = new Printer(this.session.id, this.partial);
    this.permissions = new Permissions(given);
    this.requests = new Requests(this.printer);
  }

  /** Traps must be set before the first line is out: that line tells a test that they are. */
  trapSignals(): void {
    for (const [signal, code] of Object.entries(SIGNAL_CODES)) {
      process.on(signal, () => {
        record("signal", { signal });
        if (!this.quirks.stubborn) this.#die(code);
      });
    }
    process.on("SIGINT", () => {
      record("signal", { signal: "SIGINT" });
      if (this.quirks.stubborn) return;
      this.#inputEnded = true;
      if (this.#turn?.inTool) this.interrupt();
      else this.#die(0);
    });
  }

  /** Follows the conversation on stdin until it ends. */
  async converse(): Promise<void> {
    for await (const line of stdinLines()) this.#take(line);
    record("end");
    this.#inputEnded = true;
    this.requests.close();
    await this.#exitWhenIdle();
  }

  /** Print mode with one prompt. */
  async answer(prompt: string): Promise<void> {
    this.requests.close();
    this.#inputEnded = true;
    await this.#begin(readScript(prompt));
  }

  /** Ends the process once everything written was taken. */
  async exit(code: number): Promise<never> {
    await this.printer.raw("");
    return this.#die(code);
  }

  /** Stops the turn. Between taking its requests back and that comes the acknowledgement. */
  interrupt(acknowledge?: () => void): void {
    this.requests.withdraw();
    acknowledge?.();
    this.#turn?.interrupt();
  }

  /** Another model from the next message on; none is the default one. */
  setModel(model: unknown): void {
    this.model = typeof model === "string" && model ? model : DEFAULT_MODEL;
  }

  spend(dollars: number, tokens: number): void {
    this.cost += dollars;
    this.#outputTokens += tokens;
    this.#calls += 1;
  }

  /** Cumulative for the process, unlike the usage of a turn. */
  modelUsage(): Fields {
    if (this.#calls === 0) return {};
    return {
      [this.model]: {
        inputTokens: 10 * this.#calls,
        outputTokens: this.#outputTokens,
        cacheReadInputTokens: 0,
        cacheCreationInputTokens: 0,
        webSearchRequests: 0,
        costUSD: this.cost,
        contextWindow: 1_000_000,
        maxOutputTokens: 64_000,
      },
    };
  }

  reportMode(): Promise<void> {
    return this.printer.system("status", { status: null, permissionMode: this.permissions.mode });
  }

  /** Begins another session in the same process, as `/clear` does. */
  clearSession(): void {
    this.session = new SessionFile(crypto.randomUUID());
    this.printer.sessionId = this.session.id;
  }

  /** Queues a turn nobody asked for. */
  enqueue(prompt: string, origin: Fields): void {
    this.#queue.push({ script: readScript(prompt), origin });
    void this.#next();
  }

  async stopTask(id: string): Promise<void> {
    const task = this.tasks.get(id);
    if (!task) return;
    clearTimeout(task.timer);
    this.tasks.delete(id);
    await this.printer.system("task_updated", {
      task_id: id,
      patch: { status: "killed", end_time: Date.now() },
    });
    await this.printer.system("task_notification", {
      task_id: id,
      tool_use_id: task.toolUseId,
      status: "stopped",
      output_file: "",
      summary: "background task",
    });
  }

  init(apiKeySource = "ANTHROPIC_API_KEY"): Promise<void> {
    return this.printer.system("init", {
      ...introduction(this.given),
      model: this.model,
      permissionMode: this.permissions.mode,
      apiKeySource,
    });
  }

  #take(line: string): void {
    if (line === "") return;
    let message: unknown;
    try {
      message = JSON.parse(line);
    } catch (error) {
      record("stdin", { raw: line });
      process.stderr.write(`Error parsing streaming input line: ${line}: ${String(error)}\n`);
      this.#die(1);
    }
    record("stdin", { line: message });
    if (!isFields(message)) return;
    if (message["type"] === "user") this.#takePrompt(message);
    if (message["type"] === "control_request") void control(this, message);
    if (message["type"] === "control_response") this.requests.answer(message["response"]);
  }

  #takePrompt(message: Fields): void {
    const { uuid } = message;
    if (typeof uuid === "string") {
      // Dropped without a result.
      if (this.#seen.has(uuid)) return;
      this.#seen.add(uuid);
    }
    const content = isFields(message["message"]) ? message["message"]["content"] : "";
    const id = typeof uuid === "string" ? uuid : crypto.randomUUID();
    this.session.append("user", id, { role: "user", content });
    this.#queue.push({ script: readScript(textOf(content)) });
    void this.#next();
  }

  /** Everything that queued up while a turn ran becomes one turn. */
  async #next(): Promise<void> {
    if (this.#turn) return;
    const first = this.#queue.shift();
    if (!first) return;
    const script = [...first.script];
    while (!first.origin && this.#queue[0] && !this.#queue[0].origin) {
      script.push(...(this.#queue.shift()?.script ?? []));
    }
    await this.#begin(script, first.origin);
    await this.#next();
    if (this.#inputEnded) await this.#exitWhenIdle();
  }

  async #begin(script: Script, origin?: Fields): Promise<void> {
    const extra = origin ? { origin } : {};
    const turn = new Turn(this);
    this.#turn = turn;
    try {
      const prints = await perform(turn, script);
      if (prints) await turn.finish(extra);
    } catch (error) {
      if (!(error instanceof Interrupted)) throw error;
      await turn.abort(extra);
    }
    this.#turn = undefined;
    for (const task of this.afterResult.splice(0)) await task();
  }

  async #exitWhenIdle(): Promise<void> {
    if (this.quirks.stubborn || this.#turn || this.#queue.length > 0) return;
    const deadline = Date.now() + TASK_GRACE_MS;
    while (this.tasks.size > 0 && Date.now() < deadline) await Bun.sleep(10);
    for (const id of this.tasks.keys()) await this.stopTask(id);
    // The last task to end may have begun a turn, which comes back here.
    if (this.#turn || this.#queue.length > 0) return;
    await this.exit(this.failed ? 1 : 0);
  }

  #die(code: number): never {
    record("exit", { code });
    process.exit(code);
  }
}
