import type { PermissionRequest, ServerData } from "../contract/messages.ts";
import { Guard } from "./guard.ts";
import { Inquiry } from "./inquiry.ts";
import { Keyboard, type Key } from "./keyboard.ts";
import { Link } from "./link.ts";
import { requestText } from "./narration.ts";
import { Output } from "./output.ts";
import { findOrCreate } from "./projects.ts";
import { exitCodes, onSignals, type Signal } from "./signals.ts";
import { Transcript } from "./transcript.ts";
import { inline, json } from "./visible.ts";
import { type Door, type Frame, Lost, Refused } from "./wire.ts";

export interface RunOptions {
  /** A directory on the server's machine. */
  readonly path: string;
  readonly prompt: string;
  readonly model: string | undefined;
  readonly permissionMode: string | undefined;
  /** Waits while something else runs. */
  readonly queue: boolean;
  readonly newSession: boolean;
  /** Prints the events as they are. */
  readonly json: boolean;
}

/** Runs a prompt to its end and shows what happens; gives the exit code. */
export async function run(door: Door, options: RunOptions): Promise<number> {
  using client = new Run(door, options);
  return await client.toItsEnd();
}

class Run implements Disposable {
  readonly #options: RunOptions;
  readonly #link: Link;
  readonly #output = new Output();
  readonly #transcript = new Transcript();
  readonly #id = crypto.randomUUID();
  readonly #done = Promise.withResolvers<number>();
  readonly #inquiries: Inquiry[] = [];
  readonly #signals: Disposable;
  readonly #guard = new Guard(() => this.#hint());
  #execution: Promise<void> | undefined;
  #keyboard: Keyboard | undefined;
  #projectId = "";
  #epoch = "";
  #phase: "asking" | "queued" | "running" | "over" | "ended" = "asking";
  #interrupted = false;

  constructor(door: Door, options: RunOptions) {
    this.#options = options;
    this.#link = new Link(door, {
      event: (frame) => this.#event(frame),
      joined: (project) => this.#joined(project),
      offline: (reason) => this.#say(`Connection lost (${inline(reason)}); trying again`),
      online: () => this.#say("Connected again"),
      over: (error) => this.#done.reject(error),
    });
    this.#signals = onSignals((signal) => this.#signalled(signal));
  }

  async toItsEnd(): Promise<number> {
    const { path, newSession } = this.#options;
    const begin = async () => {
      await this.#link.open();
      this.#projectId = await findOrCreate(this.#link, path);
      await this.#link.follow(this.#projectId);
      if (newSession) await this.#link.insist("agent_new_session");
      this.#execution = this.#execute();
      await this.#execution.catch((error: unknown) => {
        const busy = error instanceof Refused && error.code === "PROCESS_ACTIVE";
        throw busy ? new Error(`${error.message}; --queue waits for its end`) : error;
      });
      return await this.#done.promise;
    };
    return await Promise.race([this.#done.promise, begin()]);
  }

  [Symbol.dispose](): void {
    this.#signals[Symbol.dispose]();
    this.#guard[Symbol.dispose]();
    this.#keyboard?.[Symbol.dispose]();
    this.#link[Symbol.dispose]();
  }

  /** Asks for the run or, once it was asked for, what became of it: the id makes that the same. */
  async #execute(): Promise<void> {
    const { prompt, model, permissionMode, queue } = this.#options;
    const answer = await this.#link.insist("execute", {
      prompt,
      queue,
      execution_id: this.#id,
      options: {
        ...(model !== undefined && { model }),
        ...(permissionMode !== undefined && { permission_mode: permissionMode }),
      },
    });
    if (answer.type === "execution_queued") this.#queued(answer.data.position);
    if (answer.type !== "execution_status") return;
    const { status } = answer.data;
    if (status === "queued") this.#queued(answer.data.position ?? 1);
    else if (status !== "running") this.#end(status);
  }

  #event(frame: Frame): void {
    if (this.#phase === "over" || this.#phase === "ended") return;
    if (frame.type === "project_deleted")
      return this.#done.reject(new Error("Cannot go on: the project was deleted"));
    if (frame.type === "execution_cancelled" && frame.data.execution_id === this.#id)
      return this.#cancelled(frame.data.reason);
    if (frame.type === "user_message" && frame.data.execution_id === this.#id)
      this.#phase = "running";
    else if (this.#phase !== "running" && frame.type !== "caught_up") return;
    // Others wait for the end of this one.
    if (frame.type === "execution_queued" || frame.type === "execution_cancelled") return;
    const over = frame.type === "project_state" && frame.data.execution?.id !== this.#id;
    this.#show(frame);
    if (frame.type === "permission_request" && frame.data.execution_id === this.#id)
      this.#asked(frame.data);
    if (frame.type === "permission_resolved") this.#answered(frame.data.permission_id);
    if (!over) return;
    // What follows belongs to another run.
    this.#phase = "over";
    this.#check();
  }

  /** How it ended is the server's to say, which answers that to the same request. */
  #check(): void {
    void this.#execute().catch((error: unknown) => this.#done.reject(error));
  }

  #show(frame: Frame): void {
    if (this.#options.json) {
      const ofTheProject = frame.seq !== undefined || frame.type === "agent_message";
      if (ofTheProject || frame.type === "notice") process.stdout.write(`${json(frame)}\n`);
      return;
    }
    const elsewhere = frame.type === "agent_message" && frame.data.type === "result";
    // Said by the exit code, or in another way.
    if (elsewhere || frame.type === "user_message" || frame.type === "permission_request") return;
    for (const piece of this.#transcript.take(frame))
      if ("words" in piece || piece.tone !== "detail") this.#output.show(piece);
  }

  #joined({ permissions, execution, epoch }: ServerData<"project_joined">): void {
    if (this.#phase === "running" && epoch !== this.#epoch && execution?.id !== this.#id)
      // It must not be asked for again: there it may be unknown, and would be run a second time.
      this.#done.reject(
        new Error("Cannot tell how the run ended: the server has another history now"),
      );
    const moved = this.#epoch !== "" && epoch !== this.#epoch;
    if (moved && this.#phase === "queued") this.#check();
    this.#epoch = epoch;
    for (const request of permissions) if (request.execution_id === this.#id) this.#asked(request);
  }

  #queued(position: number): void {
    if (this.#phase !== "asking") return;
    this.#phase = "queued";
    this.#say(`Waits its turn at position ${position}`);
  }

  #cancelled(reason = "taken back"): void {
    this.#phase = "ended";
    if (!this.#interrupted)
      this.#output.line({ tone: "error", text: `It will not run: ${inline(reason)}` });
    this.#done.resolve(this.#interrupted ? exitCodes.SIGINT : 1);
  }

  #end(status: "succeeded" | "failed" | "killed"): void {
    this.#phase = "ended";
    this.#output.words("");
    if (this.#interrupted) return this.#done.resolve(exitCodes.SIGINT);
    if (status === "killed")
      this.#output.line({ tone: "error", text: "The run was stopped from elsewhere" });
    this.#done.resolve(status === "succeeded" ? 0 : 1);
  }

  #asked(request: PermissionRequest): void {
    if (this.#inquiries.some((one) => one.request.permission_id === request.permission_id)) return;
    this.#inquiries.push(new Inquiry(request));
    if (!process.stdin.isTTY || !process.stderr.isTTY) {
      this.#output.line({ tone: "ask", text: requestText(request) });
      const words = `Waiting for an answer from another device, or from: attach ${this.#projectId}`;
      return this.#output.line({ tone: "ask", text: words });
    }
    if (this.#inquiries.length === 1) this.#ask();
  }

  /** Shows the first of what is asked, and reads keys until nothing is. */
  #ask(): void {
    const [inquiry] = this.#inquiries;
    if (!inquiry) {
      this.#keyboard?.[Symbol.dispose]();
      this.#keyboard = undefined;
      return;
    }
    if (!process.stdin.isTTY || !process.stderr.isTTY) return;
    this.#keyboard ??= new Keyboard({ input: process.stdin, output: process.stderr }, (key) =>
      this.#pressed(key),
    );
    this.#output.line({ tone: "ask", text: inquiry.text });
    this.#guard.raise();
  }

  #hint(): void {
    const [inquiry] = this.#inquiries;
    if (inquiry) this.#output.hint(`${inquiry.hint}: ${inline(inquiry.words?.text ?? "")}`);
  }

  #pressed(key: Key): void {
    if (key.ctrl && key.name === "c") return this.#signalled("SIGINT");
    const [inquiry] = this.#inquiries;
    if (!inquiry) return;
    if (this.#guard.up) return this.#guard.raise();
    const shown = inquiry.text;
    const answer = inquiry.press(key);
    if (answer)
      void this.#link
        .insist("permission_response", answer)
        // Somebody else was faster; that they were is told as an event.
        .catch((error: unknown) =>
          this.#say(error instanceof Error ? error.message : String(error)),
        );
    else if (inquiry.text !== shown) this.#ask();
    else this.#hint();
  }

  #answered(id: string): void {
    const at = this.#inquiries.findIndex(({ request }) => request.permission_id === id);
    if (at === -1) return;
    this.#inquiries.splice(at, 1);
    if (at === 0) this.#ask();
  }

  #signalled(signal: Signal): void {
    const again = this.#interrupted;
    if (signal === "SIGINT" && !again && this.#phase !== "ended") {
      this.#interrupted = true;
      this.#say("Stopping the run; Ctrl-C again leaves it");
      void this.#stop().catch((error: unknown) => this.#done.reject(error));
      return;
    }
    this.#say("Leaving; the run goes on if it was not stopped yet");
    this.#done.resolve(exitCodes[signal]);
  }

  /** Ends the run; not another one that began while the connection was gone. */
  async #stop(): Promise<void> {
    while (this.#phase !== "over" && this.#phase !== "ended") {
      try {
        // oxlint-disable-next-line no-await-in-loop -- it may be accepted by now
        if (this.#phase === "asking") await this.#execution;
        if (this.#phase === "asking") return this.#done.resolve(exitCodes.SIGINT);
        // oxlint-disable-next-line no-await-in-loop -- the next connection is waited for
        if (this.#phase === "running") await this.#link.ask("agent_kill");
        // oxlint-disable-next-line no-await-in-loop -- as above
        else await this.#link.ask("execution_cancel", { execution_id: this.#id });
        return;
      } catch (error) {
        if (!(error instanceof Lost)) throw error;
      }
    }
  }

  #say(text: string): void {
    this.#output.line({ tone: "notice", text });
  }
}
