import type { ServerWebSocket } from "bun";
import type { Login } from "../access/login.ts";
import { type CloseCode, closeCodes, Fault } from "../contract/errors.ts";
import type { Actor, Scope, ServerData, ServerType } from "../contract/messages.ts";
import type { Config } from "../contract/options.ts";
import type { Frame } from "../core/frame.ts";
import { encode } from "../core/frame.ts";
import type { Clock, Telemetry } from "../core/ports.ts";
import type { Project } from "../core/project.ts";
import { RateLimit } from "../core/rate-limit.ts";
import { Subscription } from "../core/subscription.ts";

const maxJoined = 16;
/** How often in a row a client may be refused before it is disconnected. */
const maxUnparsable = 10;
const maxLimited = 100;

export interface ConnectionDeps {
  readonly config: Config;
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly sent: (type: ServerType, frames: number) => void;
  readonly address: string;
  /** Undefined where nobody needs to log in. */
  readonly login: Login | undefined;
  /** Who comes without logging in; null where nobody knows. */
  readonly known: Actor | null;
}

/** One client: its socket, what it has joined, and how it behaves. */
export class Connection {
  readonly id = crypto.randomUUID();
  readonly address: string;
  readonly connectedAt: string;
  readonly login: Login | undefined;
  readonly #socket: ServerWebSocket<unknown>;
  readonly #deps: ConnectionDeps;
  readonly #rate: RateLimit;
  /** Refusals that are worth a line in the audit log; somebody may try all day. */
  readonly #refusals: RateLimit;
  readonly #joined = new Map<string, Subscription>();
  #unparsable = 0;
  #limited = 0;
  #heardAt: number;
  #progressAt: number;
  #pingedAt: number;
  #buffered = 0;
  #closedAt: number | undefined;

  constructor(socket: ServerWebSocket<unknown>, deps: ConnectionDeps) {
    this.#socket = socket;
    this.#deps = deps;
    this.address = deps.address;
    this.login = deps.login;
    this.connectedAt = deps.clock.now().toISOString();
    const { messageRate } = deps.config;
    this.#rate = new RateLimit(deps.clock, messageRate, messageRate * 2);
    this.#refusals = new RateLimit(deps.clock, 1, 20);
    this.#heardAt = this.#progressAt = this.#pingedAt = deps.clock.monotonic();
  }

  /** What it may do now; everything where nobody needs to log in. */
  get scope(): Scope | "none" {
    return this.login ? this.login.scope : "full";
  }

  /** The device behind it; null where nobody needs to log in. */
  get actor(): Actor | null {
    return this.login ? this.login.actor : this.#deps.known;
  }

  /** Ids of the projects it has joined. */
  get joined(): readonly string[] {
    return [...this.#joined].flatMap(([id, { stopped }]) => (stopped ? [] : [id]));
  }

  /** Whether it was told to go. */
  get closing(): boolean {
    return this.#closedAt !== undefined;
  }

  /** Subscribes to what everybody is told. */
  enter(topic: string): void {
    this.#socket.subscribe(topic);
  }

  /** Sends a message of this connection's own: a reply, or what follows from one. */
  send<T extends ServerType>(
    type: T,
    data: ServerData<T>,
    about: { project_id?: string | undefined; request_id?: string | undefined } = {},
  ): void {
    const timestamp = this.#deps.clock.now().toISOString();
    this.sendFrame(encode(type, JSON.stringify(data), { ...about, timestamp }));
  }

  sendFrame({ type, text }: Frame): void {
    // A socket that is closed by now, or over its backpressure limit and so about to be, drops it.
    if (this.#socket.send(text) !== 0) this.#deps.sent(type, 1);
  }

  /** Throws when joining one more project would be too much. */
  mayJoin(projectId: string): void {
    // A project that was deleted ended its subscriptions, and takes no place any more.
    for (const [id, { stopped }] of this.#joined) if (stopped) this.#joined.delete(id);
    if (this.#joined.has(projectId) || this.#joined.size < maxJoined) return;
    throw new Fault(
      "RESOURCE_LIMIT",
      `Cannot join the project: this connection has joined ${maxJoined} already`,
      { resource: "joined_projects" },
    );
  }

  hasJoined(projectId: string): boolean {
    return this.#joined.has(projectId);
  }

  /** Puts this client's place in the project at `from`; nothing is sent before it is pumped. */
  join(project: Project, { from, deltas }: { from: number; deltas: boolean }): Subscription {
    this.mayJoin(project.id);
    this.leave(project.id);
    const { clock, telemetry } = this.#deps;
    const outlet = {
      send: (type: ServerType, text: string) => this.sendFrame({ type, text }),
      buffered: () => this.#socket.getBufferedAmount(),
      subscribe: (topic: string) => void this.#socket.subscribe(topic),
      unsubscribe: (topic: string) => void this.#socket.unsubscribe(topic),
      open: () => this.#socket.readyState === WebSocket.OPEN,
    };
    const subscription = new Subscription(project.feed, outlet, { from, deltas, clock, telemetry });
    this.#joined.set(project.id, subscription);
    return subscription;
  }

  /** Notes whether somebody looks at a project here. Throws if it has not been joined. */
  view(projectId: string, visible: boolean): void {
    const subscription = this.#joined.get(projectId);
    if (!subscription || subscription.stopped)
      throw new Fault(
        "INVALID_MESSAGE",
        "Cannot tell who looks at the project: this connection has not joined it; send project_join first",
        { path: "project_id" },
      );
    subscription.visible = visible;
  }

  leave(projectId: string): void {
    this.#joined.get(projectId)?.stop();
    this.#joined.delete(projectId);
  }

  /** The socket has taken everything: whoever reads from a log goes on. */
  drained(): void {
    this.#progressAt = this.#deps.clock.monotonic();
    for (const subscription of this.#joined.values()) subscription.pump();
  }

  /** Anything at all came in. */
  heard(): void {
    this.#heardAt = this.#deps.clock.monotonic();
  }

  /** Takes a request from the rate limit, or throws RATE_LIMITED. */
  take(cost: number): void {
    const wait = this.#rate.take(cost);
    if (wait === 0) {
      this.#limited = 0;
      return;
    }
    this.#limited += 1;
    if (this.#limited >= maxLimited) this.close(4429);
    throw new Fault("RATE_LIMITED", "Cannot take the request: too many in a short time", {
      retry_after_ms: wait,
    });
  }

  /** Whether a refusal should be noted: not each one of somebody who does not stop. */
  get notesRefusal(): boolean {
    return this.#refusals.take() === 0;
  }

  /** Counts frames that were no JSON object, in a row. */
  parsed(well: boolean): void {
    this.#unparsable = well ? 0 : this.#unparsable + 1;
    if (this.#unparsable >= maxUnparsable) this.close(4400);
  }

  close(code: CloseCode): void {
    if (this.#closedAt !== undefined) return;
    this.#closedAt = this.#deps.clock.monotonic();
    this.#socket.close(code, closeCodes[code].reason);
  }

  /** Everything this connection held is let go; called once it is closed. */
  [Symbol.dispose](): void {
    for (const subscription of this.#joined.values()) subscription.stop();
    this.#joined.clear();
  }

  /**
   * Pings, and closes a client that is gone or reads nothing. The deadlines are ours: Bun's idle
   * timeout is re-armed by our own sends (oven-sh/bun PR 39255).
   */
  tick(): void {
    const { pingInterval, pongTimeout, idleTimeout, stallTimeout } = this.#deps.config;
    const now = this.#deps.clock.monotonic();
    const buffered = this.#socket.getBufferedAmount();
    if (buffered === 0 || buffered < this.#buffered) this.#progressAt = now;
    this.#buffered = buffered;
    // A close frame cannot reach a client that reads nothing.
    if (this.#closedAt !== undefined) {
      if (now - this.#closedAt > 1_000) this.#socket.terminate();
      return;
    }
    if (this.login?.overdue) return this.close(4401);
    if (this.login?.done && !this.login.device) return this.close(4403);
    // A pong waits behind what the client has not read yet, so reading is a sign of life too.
    const alive = Math.max(this.#heardAt, buffered > 0 ? this.#progressAt : 0);
    const overdue = alive < this.#pingedAt && now - this.#pingedAt > pongTimeout;
    const idle = idleTimeout > 0 && now - alive > Math.max(idleTimeout, pingInterval + pongTimeout);
    if (overdue || idle || now - this.#progressAt > stallTimeout) return this.close(4408);
    const answered = alive >= this.#pingedAt;
    if (!answered || now - this.#pingedAt < pingInterval) return;
    this.#pingedAt = now;
    this.#socket.ping();
  }
}
