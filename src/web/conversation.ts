import { batch, signal } from "@preact/signals";
import type { PermissionRequest, ProjectState, ServerData } from "../contract/messages.ts";
import { type LiveBlock, LiveTurn } from "./live-turn.ts";
import { type Frame, type Link, Refusal } from "./link.ts";
import { type Entry, type Item, type QueuedPrompt, Transcript } from "./transcript.ts";

const pageSize = 200;
/** More than this of a conversation is not held; what is farthest from the reader goes first. */
const maxEntries = 4_000;
/** Nor more than this, in characters. */
const maxSize = 40_000_000;
/** More than this is not caught up with event by event: the newest page is read instead. */
const maxGap = 2_000;

/** One project as it is watched: what is loaded of its history, and what is happening now. */
export class Conversation implements Disposable {
  readonly state;
  readonly items = signal<readonly Item[]>([]);
  readonly live = signal<readonly LiveBlock[]>([]);
  readonly permissions = signal<readonly PermissionRequest[]>([]);
  /** Prompts that the server has and that wait their turn. */
  readonly queued = signal<readonly QueuedPrompt[]>([]);
  readonly commands = signal<readonly string[]>([]);
  readonly loading = signal<"start" | "older" | "newer" | undefined>("start");
  readonly hasOlder = signal(false);
  /** What is loaded ends before the newest event. */
  readonly hasNewer = signal(false);
  /** Everything that happened has been seen; false while it is catching up. */
  readonly level = signal(false);
  readonly #link: Link;
  readonly #turn = new LiveTurn();
  #entries: Entry[] = [];
  #size = 0;
  #transcript = new Transcript();
  #epoch = "";
  #cursor = 0;
  /** What the answer to the join says of state and requests is as of this event. */
  #asOf = 0;
  /** Between asking to join and the answer, events are of a subscription that is over. */
  #joining = false;
  #drawn: number | undefined;
  #over = false;

  constructor(link: Link, state: ProjectState) {
    this.#link = link;
    this.state = signal(state);
  }

  get id(): string {
    return this.state.value.id;
  }

  /** Joins, or joins again after a loss: from where it was, if that is not too long ago. */
  async join(lastSeq: number): Promise<void> {
    const known = this.#epoch !== "" && !this.hasNewer.value && lastSeq - this.#cursor <= maxGap;
    await this.#attempt(async () => {
      const joined = await this.#enter(known);
      const resumed = known && joined.resume === "ok";
      if (known && !resumed) await this.#enter(false);
      this.look();
      if (!resumed) await this.#newest();
    });
  }

  /** Says whether somebody looks, so that nobody is told by a notification what is seen here. */
  look(): void {
    const data = { visible: !document.hidden };
    const said = this.#link.request("project_view", { project: this.id, data });
    // Without a connection it is said again after the next join.
    said.catch(() => undefined);
  }

  /** Reads a page before what is loaded. */
  async older(): Promise<void> {
    const [first] = this.#entries;
    if (!first || !this.hasOlder.value || this.loading.value) return;
    this.loading.value = "older";
    await this.#attempt(async () => {
      const page = await this.#page({ before_seq: first.seq });
      // Somebody went elsewhere meanwhile.
      if (this.#entries[0] !== first) return;
      this.#entries = [...page.messages, ...this.#entries];
      this.hasOlder.value = page.has_more;
      if (this.#trim("end")) this.hasNewer.value = true;
      this.#rebuild();
    });
  }

  /** Reads a page after what is loaded, if that is not the newest. */
  async newer(): Promise<void> {
    const last = this.#entries.at(-1);
    if (!last || !this.hasNewer.value || this.loading.value) return;
    this.loading.value = "newer";
    await this.#attempt(async () => {
      const page = await this.#page({ after_seq: last.seq });
      if (this.#entries.at(-1) !== last) return;
      this.#entries = [...this.#entries, ...page.messages];
      if (this.#trim("start")) this.hasOlder.value = true;
      // Events that came while it was read were not kept.
      this.hasNewer.value = (this.#entries.at(-1)?.seq ?? 0) < this.#cursor;
      this.#rebuild();
    });
  }

  /** Goes to the newest page, wherever it was. */
  async toNewest(): Promise<void> {
    if (!this.hasNewer.value) return;
    // Joined anew, what comes while the page is read follows it.
    await this.#attempt(async () => {
      await this.#enter(false);
      this.look();
      await this.#newest();
    });
  }

  /** Takes a frame about this project. */
  receive(frame: Frame): void {
    if (frame.type === "project_joined") this.#joined(frame.data as ServerData<"project_joined">);
    else if (frame.type === "project_updated") this.state.value = frame.data as ProjectState;
    else if (this.#joining) return;
    else if (frame.type === "caught_up") this.level.value = true;
    else if (frame.seq !== undefined) this.#event(frame, frame.seq);
    else if (frame.type === "agent_message") {
      this.#turn.delta(frame.data);
      this.#draw();
    }
  }

  /** The connection is gone, and with it what was half written. */
  lost(): void {
    this.level.value = false;
    this.#turn.clear();
    this.#draw();
  }

  [Symbol.dispose](): void {
    this.#over = true;
    clearTimeout(this.#drawn);
    const leaving = this.#link.request("project_leave", { project: this.id });
    // Without a connection there is nothing to leave.
    leaving.catch(() => undefined);
  }

  async #enter(known: boolean) {
    this.#joining = true;
    this.#turn.clear();
    const data = known ? { after_seq: this.#cursor, epoch: this.#epoch } : {};
    return await this.#link.request("project_join", { project: this.id, data });
  }

  /** Runs as soon as the answer to a join is there, before the events that follow it. */
  #joined({ resume, from, permissions, ...state }: ServerData<"project_joined">): void {
    this.#joining = false;
    this.#epoch = state.epoch;
    this.#cursor = from;
    this.#asOf = state.last_seq;
    this.level.value = false;
    this.state.value = state;
    this.permissions.value = permissions;
    if (resume === "ok") return;
    this.#entries = [];
    this.hasNewer.value = false;
    this.#rebuild();
  }

  async #newest(): Promise<void> {
    this.loading.value = "start";
    const page = await this.#page({ before_seq: this.#entries[0]?.seq ?? this.#cursor + 1 });
    const last = page.messages.at(-1)?.seq ?? 0;
    // Events that came while the page was read follow it.
    this.#entries = [...page.messages, ...this.#entries.filter(({ seq }) => seq > last)];
    this.hasOlder.value = page.has_more;
    this.#rebuild();
  }

  async #page(range: { before_seq?: number; after_seq?: number }) {
    const data = { ...range, limit: pageSize };
    const page = await this.#link.request("get_messages", { project: this.id, data });
    return {
      has_more: page.has_more,
      messages: page.messages.map((record): Entry => ({ ...record, size: sizeOf(record.message) })),
    };
  }

  /** What is not read for want of a connection is read when there is one. */
  async #attempt(read: () => Promise<void>): Promise<void> {
    try {
      await read();
    } catch (cause) {
      this.#joining = false;
      if (!(cause instanceof Refusal) || (cause.code !== "OFFLINE" && !this.#over)) throw cause;
    } finally {
      this.loading.value = undefined;
    }
  }

  #event(frame: Frame, seq: number): void {
    if (seq <= this.#cursor) return;
    this.#cursor = seq;
    const entry = entryOf(frame, seq);
    // What a replay says of them is of the past.
    if (seq > this.#asOf) this.#settle(frame);
    if (!this.hasNewer.value) {
      this.#entries.push(entry);
      this.#transcript.append(entry);
      this.#size += entry.size;
      // Not at each one: it is made anew then.
      if (this.#entries.length > maxEntries + pageSize || this.#size > 1.25 * maxSize) {
        if (this.#trim("start")) this.hasOlder.value = true;
        this.#rebuild();
      }
    }
    this.#draw();
  }

  /** What an event changes beside the list of events. */
  #settle({ type, data }: Frame): void {
    if (type === "project_state") this.state.value = data as ProjectState;
    else if (type === "permission_request")
      this.permissions.value = [...this.permissions.value, data as PermissionRequest];
    else if (type === "permission_resolved")
      this.permissions.value = this.permissions.value.filter(
        ({ permission_id }) => permission_id !== data["permission_id"],
      );
    else if (type === "agent_message" && data["type"] === "assistant") {
      if (typeof data["parent_tool_use_id"] !== "string") this.#turn.completed();
    } else if (type === "agent_message" && data["type"] === "result") this.#turn.clear();
  }

  /** Lets go of what is too much at one end; one event at least is kept. Whether there was any. */
  #trim(end: "start" | "end"): boolean {
    const before = this.#entries.length;
    let size = this.#entries.reduce((sum, entry) => sum + entry.size, 0);
    let excess = Math.max(0, before - maxEntries);
    while (before - excess > 1 && size > maxSize) {
      size -= this.#entries.at(end === "start" ? excess : -1 - excess)?.size ?? 0;
      excess += 1;
    }
    this.#entries.splice(end === "start" ? 0 : before - excess, excess);
    return excess > 0;
  }

  #rebuild(): void {
    this.#size = this.#entries.reduce((sum, { size }) => sum + size, 0);
    this.#transcript = new Transcript(this.#entries);
    this.#show();
  }

  /** Shows what is there at the next frame: a flood of events is one change to the page. */
  #draw(): void {
    // A page in the background gets no frames, but its memory should not fill up either.
    this.#drawn ??= document.hidden
      ? window.setTimeout(() => this.#show(), 500)
      : requestAnimationFrame(() => this.#show());
  }

  #show(): void {
    this.#drawn = undefined;
    batch(() => {
      this.items.value = [...this.#transcript.items];
      this.live.value = this.#turn.blocks;
      this.queued.value = [...this.#transcript.queued.values()];
      if (this.#transcript.commands.length > 0) this.commands.value = this.#transcript.commands;
    });
  }
}

/** In characters, as it was sent. */
function sizeOf(message: object): number {
  return JSON.stringify(message).length;
}

function entryOf({ type, data, timestamp, size }: Frame, seq: number): Entry {
  const about = { seq, timestamp, size };
  if (type === "user_message")
    return { ...about, direction: "client", message: { type: "execute", data } };
  if (type === "agent_message") return { ...about, direction: "claude", message: data };
  return { ...about, direction: "server", message: { type, data } };
}
