import { Fault } from "../../contract/errors.ts";
import type { Image, PermissionMode } from "../../contract/agent-options.ts";
import type {
  AgentExit,
  AgentLine,
  AgentProcess,
  Telemetry,
  ToolAnswer,
} from "../../core/ports.ts";
import { LineSplitter, type Line } from "../lines.ts";
import { Ladder, type LadderTiming } from "./ladder.ts";
import { Output, readTail } from "./output.ts";
import type { ProcessId, ProcessTable } from "./processes.ts";
import {
  controlRequest,
  type Incoming,
  readLine,
  refusal,
  toolAnswer,
  userMessage,
} from "./protocol.ts";
import type { Started } from "./run-records.ts";
import { sweep } from "./sweep.ts";

const stderrBytes = 8 * 1024;
const controlTimeoutMs = 5000;

/** The CLI, just spawned. */
export type Child = Bun.Subprocess<"pipe", "pipe", "pipe">;

/** What a process needs besides the child itself. */
export interface Surroundings {
  readonly marker: string;
  readonly record: Started;
  readonly lineBytes: number;
  readonly timing: LadderTiming;
  readonly table: ProcessTable;
  readonly telemetry: Telemetry;
}

/** One live CLI, from its spawn until nothing of it is left. */
export class ClaudeProcess implements AgentProcess {
  readonly lines: AsyncIterable<readonly AgentLine[]>;
  readonly exit: Promise<AgentExit>;
  readonly #child: Child;
  readonly #around: Surroundings;
  readonly #stdout: Output;
  readonly #ladder: Ladder;
  readonly #gone: Promise<void>;
  readonly #kin = new Map<number, ProcessId>();
  readonly #replies = new Map<string, (error: string | null) => void>();
  /** Resolves at the end of the turn that is running, if one is. */
  #turn: PromiseWithResolvers<void> | undefined;
  #inputEnded = false;

  constructor(child: Child, around: Surroundings) {
    this.#child = child;
    this.#around = around;
    this.#stdout = new Output(child.stdout);
    const stderr = new Output(child.stderr);
    void child.exited.then(() => this.#stdout.writerGone());
    void child.exited.then(() => stderr.writerGone());
    this.lines = this.#read();
    this.exit = this.#end(readTail(stderr, stderrBytes));
    this.#gone = this.#cleanUp(this.#recordIdentity());
    this.#ladder = new Ladder(
      {
        interrupt: () => this.#interrupt(),
        endInput: () => this.#endInput(),
        survey: () => this.#survey(),
        signal: (name) => child.kill(name),
        exited: child.exited,
      },
      around.timing,
    );
  }

  prompt(text: string, images: readonly Image[]): void {
    this.#turn ??= Promise.withResolvers();
    this.#send(userMessage(text, images));
  }

  answer(requestId: string, answer: ToolAnswer): void {
    this.#send(toolAnswer(requestId, answer));
  }

  /** Changes the mode of the live process. The CLI takes any string: only known modes get here. */
  async setPermissionMode(mode: PermissionMode): Promise<void> {
    await this.#control({ subtype: "set_permission_mode", mode });
  }

  /** Changes the model from the next turn on; null goes back to the default. */
  async setModel(model: string | null): Promise<void> {
    await this.#control({ subtype: "set_model", model });
  }

  async close(): Promise<void> {
    await Promise.all([this.#ladder.climb("input"), this.#gone]);
  }

  async stop(force: boolean): Promise<void> {
    const step = force ? this.#ladder.force() : this.#ladder.climb("interrupt");
    await Promise.all([step, this.#gone]);
  }

  async *#read(): AsyncGenerator<readonly AgentLine[], void, void> {
    const splitter = new LineSplitter(this.#around.lineBytes);
    for await (const chunk of this.#stdout) {
      const batch = this.#take(splitter.push(chunk));
      if (batch.length > 0) yield batch;
    }
    const last = splitter.end();
    const batch = last ? this.#take([last]) : [];
    if (batch.length > 0) yield batch;
  }

  #take(lines: readonly Line[]): AgentLine[] {
    return lines.flatMap((line) => this.#receive(readLine(line)) ?? []);
  }

  /** Handles what is meant for the server itself, and gives back what is meant for people. */
  #receive(incoming: Incoming): AgentLine | undefined {
    if (incoming.kind === "pass") {
      this.#follow(incoming.line);
      return incoming.line;
    }
    if (incoming.kind === "reply") this.#replies.get(incoming.requestId)?.(incoming.error);
    if (incoming.kind === "unsupported") this.#send(refusal(incoming.requestId));
    return undefined;
  }

  /** A turn can begin without a prompt: when a background task ends, for one. */
  #follow(line: AgentLine): void {
    if (line.kind !== "event") return;
    const { type, subtype } = line.event;
    if (type === "system" && subtype === "init") this.#turn ??= Promise.withResolvers();
    if (type !== "result") return;
    this.#turn?.resolve();
    this.#turn = undefined;
  }

  async #end(stderr: Promise<string>): Promise<AgentExit> {
    await this.#child.exited;
    const { exitCode, signalCode } = this.#child;
    const signal = signalCode === null ? null : String(signalCode);
    return { code: exitCode, signal, stderr: await stderr };
  }

  /** However it ended: what it left behind goes, and then the record of it. */
  async #cleanUp(recorded: Promise<void>): Promise<void> {
    await Promise.all([this.#child.exited, recorded]);
    this.#inputEnded = true;
    for (const settle of this.#replies.values()) settle("it has exited");
    const { marker, table, telemetry, record } = this.#around;
    try {
      const prey = { marker, known: [...this.#kin.values()] };
      const { swept, clean } = await sweep(prey, table);
      if (swept > 0) telemetry.count("processes_swept_total", {}, swept);
      if (clean) record.remove();
      else telemetry.log("error", "Processes of an ended run cannot be killed", { marker });
    } catch (error) {
      // The record stays, so the next server tries again.
      telemetry.log("error", "An ended run cannot be swept", { marker, error: String(error) });
    }
  }

  async #recordIdentity(): Promise<void> {
    const { marker, table, telemetry, record } = this.#around;
    try {
      const { pid } = this.#child;
      const started = await table.started(pid);
      if (started !== null) record.complete({ pid, started });
    } catch (error) {
      telemetry.log("warn", "A run cannot be recorded", { marker, error: String(error) });
    }
  }

  async #survey(): Promise<void> {
    try {
      const family = await this.#around.table.family(this.#child.pid);
      for (const member of family) this.#kin.set(member.pid, member);
    } catch (error) {
      const { marker, telemetry } = this.#around;
      telemetry.log("warn", "The family of a run is unknown", { marker, error: String(error) });
    }
  }

  async #interrupt(): Promise<void> {
    if (!this.#turn) return;
    this.#send(controlRequest(crypto.randomUUID(), { subtype: "interrupt" }));
    await this.#turn.promise;
  }

  async #control(request: Readonly<Record<string, unknown>>): Promise<void> {
    const requestId = crypto.randomUUID();
    const { promise, resolve } = Promise.withResolvers<string | null>();
    // Old versions do not answer what they do not know.
    const timer = setTimeout(resolve, controlTimeoutMs, "it does not answer");
    this.#replies.set(requestId, resolve);
    if (this.#inputEnded) resolve("it is closed");
    else this.#send(controlRequest(requestId, request));
    const error = await promise;
    clearTimeout(timer);
    this.#replies.delete(requestId);
    if (error === null) return;
    throw new Fault("EXECUTION_FAILED", `Cannot change the running agent: ${error}`);
  }

  #send(line: string): void {
    if (this.#inputEnded) return;
    this.#feed(() => [this.#child.stdin.write(`${line}\n`), this.#child.stdin.flush()]);
  }

  #endInput(): void {
    if (this.#inputEnded) return;
    this.#inputEnded = true;
    this.#feed(() => [this.#child.stdin.end()]);
  }

  /** Writing fails, at once or later, when the agent has died; its exit then says why. */
  #feed(write: () => readonly (number | Promise<number>)[]): void {
    const report = (error: unknown): void => {
      const { marker, telemetry } = this.#around;
      telemetry.log("debug", "The agent takes no input", { marker, error: String(error) });
    };
    try {
      for (const written of write()) {
        if (written instanceof Promise) written.catch(report);
      }
    } catch (error) {
      report(error);
    }
  }
}
