import type { ReadStream, WriteStream } from "node:tty";
import type { PermissionRequest, ProjectState, ServerData } from "../contract/messages.ts";
import { Guard } from "./guard.ts";
import { Inquiry } from "./inquiry.ts";
import { type Key, Keyboard } from "./keyboard.ts";
import { LineEditor } from "./line-editor.ts";
import { Link } from "./link.ts";
import { find } from "./projects.ts";
import { footerOf } from "./prompt.ts";
import { frameOf } from "./records.ts";
import { Screen } from "./screen.ts";
import { exitCodes, onSignals } from "./signals.ts";
import { paintFor, toned } from "./style.ts";
import { Transcript } from "./transcript.ts";
import { inline, json } from "./visible.ts";
import type { Door, Frame } from "./wire.ts";

export interface AttachOptions {
  /** Id, name or path of a project, and what else the path may be. */
  readonly project: string;
  readonly paths: readonly string[];
  readonly input: ReadStream;
  readonly output: WriteStream;
}

/** How much of the history is shown at first. */
const shownRecords = 20;
/** A second Ctrl-C within this leaves. */
const againMs = 2_000;
/** What Tab goes through. */
const modes = ["default", "acceptEdits", "plan"] as const;

/** Shows a project and takes what is typed, until somebody leaves; gives the exit code. */
export async function attach(door: Door, options: AttachOptions): Promise<number> {
  using attached = new Attached(door, options);
  return await attached.untilLeft();
}

class Attached implements Disposable {
  readonly #options: AttachOptions;
  readonly #link: Link;
  readonly #screen: Screen;
  readonly #stack = new DisposableStack();
  readonly #paint;
  readonly #transcript = new Transcript();
  readonly #guard = new Guard(() => this.#refresh());
  readonly #left = Promise.withResolvers<number>();
  readonly #line = new LineEditor();
  readonly #typed: string[] = [];
  #recalled = 0;
  #inquiries: Inquiry[] = [];
  #state: ProjectState | undefined;
  #online = true;
  #raw = false;
  #stoppedAt = Number.NEGATIVE_INFINITY;

  constructor(door: Door, options: AttachOptions) {
    this.#options = options;
    this.#screen = new Screen(options.output);
    this.#paint = paintFor(options.output);
    this.#link = new Link(door, {
      event: (frame) => this.#event(frame),
      joined: (project) => this.#joined(project),
      offline: (reason) => this.#connected(false, `Connection lost (${inline(reason)})`),
      online: () => this.#connected(true, "Connected again"),
      over: (error) => this.#left.reject(error),
    });
  }

  async untilLeft(): Promise<number> {
    // Whoever is told to leave does not wait for a server.
    return await Promise.race([this.#left.promise, this.#begin()]);
  }

  [Symbol.dispose](): void {
    this.#screen.close();
    this.#guard[Symbol.dispose]();
    this.#stack.dispose();
    this.#link[Symbol.dispose]();
  }

  async #begin(): Promise<number> {
    const { project, paths, input, output } = this.#options;
    await this.#link.open();
    const { id, epoch, path } = await find(this.#link, project, paths);
    this.#stack.use(onSignals((signal) => this.#left.resolve(exitCodes[signal])));
    this.#say(`${inline(path)}: Enter sends, Tab changes the mode, Ctrl-R shows raw events,`);
    this.#say("Ctrl-C stops the run and twice leaves, Ctrl-D leaves");
    const seq = await this.#history(id);
    this.#stack.use(new Keyboard({ input, output }, (key) => this.#pressed(key)));
    const refresh = () => this.#refresh();
    output.on("resize", refresh);
    this.#stack.defer(() => void output.off("resize", refresh));
    await this.#link.follow(id, { seq, epoch });
    return await this.#left.promise;
  }

  async #history(project_id: string): Promise<number> {
    const answer = await this.#link.insist("get_messages", { project_id, limit: shownRecords });
    if (answer.type !== "messages_response") return 0;
    for (const record of answer.data.messages) this.#show(frameOf(record));
    return answer.data.messages.at(-1)?.seq ?? 0;
  }

  #event(frame: Frame): void {
    this.#show(frame);
    if (frame.type === "project_state" || frame.type === "project_updated") this.#learn(frame.data);
    if (frame.type === "permission_request") this.#asked(frame.data);
    if (frame.type === "permission_resolved") this.#settled(frame.data.permission_id);
    if (frame.type === "project_deleted") this.#left.resolve(0);
    this.#refresh();
  }

  #show(frame: Frame): void {
    if (this.#raw) return this.#screen.lines(json(frame));
    for (const piece of this.#transcript.take(frame))
      if ("words" in piece) this.#screen.words(piece.words);
      else if (frame.type !== "permission_request") this.#screen.lines(toned(this.#paint, piece));
  }

  #joined(project: ServerData<"project_joined">): void {
    if (this.#state && this.#state.epoch !== project.epoch)
      this.#say("The server has another history now; it goes on from here");
    this.#state = project;
    const open = new Set(project.permissions.map(({ permission_id }) => permission_id));
    for (const { request } of this.#inquiries)
      if (!open.has(request.permission_id)) this.#settled(request.permission_id);
    for (const request of project.permissions) this.#asked(request);
    this.#refresh();
  }

  /** A reply waits for the disk, and may be older than the events that came before it. */
  #learn(state: ProjectState): void {
    if (!this.#state || state.last_seq >= this.#state.last_seq) this.#state = state;
  }

  #connected(online: boolean, text: string): void {
    this.#online = online;
    this.#say(text);
  }

  #asked(request: PermissionRequest): void {
    if (this.#inquiries.some((one) => one.request.permission_id === request.permission_id)) return;
    this.#inquiries.push(new Inquiry(request));
    if (this.#inquiries.length === 1) this.#ask();
  }

  /** Shows what is asked first. */
  #ask(): void {
    const [inquiry] = this.#inquiries;
    if (!inquiry) return;
    this.#screen.lines(toned(this.#paint, { tone: "ask", text: inquiry.text }));
    this.#guard.raise();
  }

  #settled(id: string): void {
    const [first] = this.#inquiries;
    this.#inquiries = this.#inquiries.filter(({ request }) => request.permission_id !== id);
    if (first?.request.permission_id === id) this.#ask();
  }

  #pressed(key: Key): void {
    if (key.ctrl && key.name === "c") return this.#interrupt();
    if (key.ctrl && key.name === "d") return this.#left.resolve(0);
    if (key.ctrl && key.name === "r") return this.#toggleRaw();
    if (key.name === "tab" && !key.pasted) return this.#nextMode();
    const [inquiry] = this.#inquiries;
    if (inquiry && this.#guard.up) this.#guard.raise();
    else if (inquiry) return this.#reply(inquiry, key);
    if (key.name === "return" && !key.pasted) this.#send();
    else if (key.name === "up") this.#recall(-1);
    else if (key.name === "down") this.#recall(1);
    else this.#line.press(key);
    this.#refresh();
  }

  #reply(inquiry: Inquiry, key: Key): void {
    const { text } = inquiry;
    const answer = inquiry.press(key);
    if (answer) this.#request("permission_response", answer);
    else if (inquiry.text !== text) this.#ask();
    this.#refresh();
  }

  #send(): void {
    const prompt = this.#line.text;
    if (prompt.trim() === "") return;
    this.#typed.push(prompt);
    this.#recalled = this.#typed.length;
    this.#line.set("");
    if (!this.#online) this.#say("Not connected; the prompt is sent when that is so again");
    // With an id it is run once, however often the connection is lost before the answer.
    const execution_id = crypto.randomUUID();
    this.#request("execute", { prompt, queue: true, execution_id });
  }

  #recall(by: number): void {
    this.#recalled = Math.max(0, Math.min(this.#typed.length, this.#recalled + by));
    this.#line.set(this.#typed[this.#recalled] ?? "");
  }

  #nextMode(): void {
    const mode = this.#state?.permission_mode;
    const at = modes.findIndex((one) => one === mode);
    this.#request("agent_set", { permission_mode: modes[(at + 1) % modes.length] });
  }

  #toggleRaw(): void {
    this.#raw = !this.#raw;
    this.#say(this.#raw ? "Raw events from here on" : "Events in words from here on");
  }

  #interrupt(): void {
    const now = performance.now();
    const again = now - this.#stoppedAt < againMs;
    this.#stoppedAt = now;
    if (again || this.#state?.state !== "EXECUTING") return this.#left.resolve(0);
    if (!this.#online) return this.#say("Not connected, so the run goes on; Ctrl-C again leaves");
    this.#say("Stopping the run; Ctrl-C again leaves");
    // Not again on another connection: another run may be in progress by then.
    void this.#settle(this.#link.ask("agent_kill"));
  }

  #request(type: "execute" | "agent_set" | "permission_response", data: object): void {
    void this.#settle(this.#link.insist(type, data));
  }

  async #settle(asked: Promise<Frame>): Promise<void> {
    try {
      const answer = await asked;
      // A mode that is set while nothing runs is no event.
      if (answer.type === "project_state") this.#learn(answer.data);
      this.#refresh();
    } catch (error) {
      const text = inline(error instanceof Error ? error.message : String(error));
      this.#screen.lines(toned(this.#paint, { tone: "error", text }));
      this.#refresh();
    }
  }

  #say(text: string): void {
    this.#screen.lines(toned(this.#paint, { tone: "notice", text }));
    this.#refresh();
  }

  #refresh(): void {
    if (!this.#state) return;
    const [inquiry] = this.#guard.up ? [] : this.#inquiries;
    this.#screen.footer = footerOf({
      project: this.#state,
      online: this.#online,
      asked: this.#inquiries.length,
      inquiry,
      line: inquiry ? inquiry.words : this.#line,
      columns: this.#screen.columns,
      paint: this.#paint,
    });
  }
}
