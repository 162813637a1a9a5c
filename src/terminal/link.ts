import type { ClientType, ServerData } from "../contract/messages.ts";
import { closeCodes } from "../contract/errors.ts";
import { type Door, type Frame, Lost, Unreachable, Wire } from "./wire.ts";

/** How far somebody has read a project. */
export interface Place {
  readonly seq: number;
  readonly epoch: string;
}

/** What happens to the project that is followed, and to the connection. */
export interface Listener {
  /** Whatever is told about the project; what is numbered comes once, and in order. */
  readonly event: (frame: Frame) => void;
  /** The project was joined, for the first time or again. */
  readonly joined: (project: ServerData<"project_joined">) => void;
  /** The connection is gone, and is made again. */
  readonly offline: (reason: string) => void;
  /** It is there again, and events follow from where they ended. */
  readonly online: () => void;
  /** It does not come again. */
  readonly over: (error: Error) => void;
}

const delaysMs = [100, 250, 500, 1_000, 2_000, 5_000];

/** A server, through all that happens to the connection, and perhaps one of its projects. */
export class Link implements Disposable {
  readonly #door: Door;
  readonly #listener: Listener;
  #wire: Promise<Wire> = Promise.reject(new Lost("Cannot ask the server: not connected yet"));
  #project: string | undefined;
  #place: Place | undefined;
  /** Whether what is read now belongs to a history that nobody asked for. */
  #muted = false;
  #closed = false;

  constructor(door: Door, listener: Listener) {
    this.#door = door;
    this.#listener = listener;
    this.#wire.catch(() => undefined);
  }

  /** Connects for the first time; after that it comes back by itself. */
  async open(): Promise<void> {
    const wire = await this.#connect();
    this.#wire = Promise.resolve(wire);
    void this.#watch(wire);
  }

  /** Reads a project from a place on or, without one, from now on. */
  async follow(project: string, place?: Place): Promise<void> {
    this.#project = project;
    this.#place = place;
    try {
      await this.#join(await this.#wire);
    } catch (error) {
      if (!(error instanceof Lost) || this.#closed) throw error;
      // The next connection joins before anybody else gets it.
      await this.#wire;
    }
  }

  /** Asks once there is a connection. Rejects with Lost when that ends before the answer. */
  async ask(type: ClientType, data: object = {}): Promise<Frame> {
    const wire = await this.#wire;
    return await wire.ask(type, {
      ...(this.#project !== undefined && { project_id: this.#project }),
      data,
    });
  }

  /** Asks until there is an answer: for what may be asked twice. */
  async insist(type: ClientType, data: object = {}): Promise<Frame> {
    for (;;) {
      try {
        // oxlint-disable-next-line no-await-in-loop -- the next connection is waited for
        return await this.ask(type, data);
      } catch (error) {
        if (!(error instanceof Lost) || this.#closed) throw error;
      }
    }
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    void this.#wire.then(
      (wire) => wire[Symbol.dispose](),
      () => undefined,
    );
  }

  #connect(): Promise<Wire> {
    return Wire.open(this.#door, (frame) => this.#hear(frame));
  }

  async #watch(wire: Wire): Promise<void> {
    const { code, reason } = await wire.closed;
    if (this.#closed) return;
    const next = Promise.withResolvers<Wire>();
    next.promise.catch(() => undefined);
    this.#wire = next.promise;
    const why = reason || `it ended without a word (${code})`;
    if (!mayReturn(code)) return this.#give(next, new Error(`Cannot stay connected: ${why}`));
    this.#listener.offline(why);
    await this.#return(next);
  }

  async #return(next: PromiseWithResolvers<Wire>): Promise<void> {
    for (let attempt = 0; !this.#closed; attempt += 1) {
      const delayMs = delaysMs[Math.min(attempt, delaysMs.length - 1)] ?? 0;
      // oxlint-disable-next-line no-await-in-loop -- one attempt follows the other
      await Bun.sleep(delayMs * (0.75 + Math.random() / 2));
      if (this.#closed) break;
      try {
        // oxlint-disable-next-line no-await-in-loop -- as above
        const wire = await this.#connect();
        // oxlint-disable-next-line no-await-in-loop -- as above
        if (this.#project !== undefined) await this.#join(wire);
        this.#listener.online();
        next.resolve(wire);
        void this.#watch(wire);
        return;
      } catch (error) {
        if (!(error instanceof Unreachable || error instanceof Lost))
          return this.#give(next, error instanceof Error ? error : new Error(String(error)));
      }
    }
    next.reject(new Lost("Cannot ask the server: the connection was closed"));
  }

  #give(next: PromiseWithResolvers<Wire>, error: Error): void {
    next.reject(error);
    this.#listener.over(error);
  }

  async #join(wire: Wire): Promise<void> {
    const project_id = this.#project ?? "";
    const { seq: after_seq, epoch } = this.#place ?? {};
    const answer = await wire.ask("project_join", {
      project_id,
      data: after_seq === undefined ? {} : { after_seq, epoch },
    });
    // Another history: what is new is wanted of it, not all of it.
    if (answer.type === "project_joined" && answer.data.resume === "reset")
      await wire.ask("project_join", { project_id });
  }

  /** All in one step: the next frame may be one that this one decides about. */
  #hear(frame: Frame): void {
    if (frame.type === "server_shutdown") return this.#listener.event(frame);
    if (this.#project === undefined || frame.project_id !== this.#project) return;
    if (frame.type === "project_joined") return this.#joined(frame.data);
    if (frame.request_id !== undefined || this.#muted) return;
    const { seq } = frame;
    if (seq !== undefined && this.#place) {
      if (seq <= this.#place.seq) return;
      this.#place = { ...this.#place, seq };
    }
    this.#listener.event(frame);
  }

  #joined(project: ServerData<"project_joined">): void {
    this.#muted = project.resume === "reset";
    if (this.#muted) return;
    this.#place = { seq: project.from, epoch: project.epoch };
    this.#listener.joined(project);
  }
}

function mayReturn(code: number): boolean {
  const row = Object.entries(closeCodes).find(([known]) => Number(known) === code);
  return row === undefined || row[1].reconnect === "yes" || row[1].reconnect === "after a pause";
}
