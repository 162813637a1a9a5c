import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Anomalies } from "./anomalies.ts";
import { Mirror, type Seen } from "./mirror.ts";
import type { Orders, ProjectOrder, PromptOrder } from "./orders.ts";
import type { Random } from "./random.ts";

interface Received {
  readonly type: string;
  readonly project_id?: string;
  readonly request_id?: string;
  readonly seq?: number;
  readonly timestamp: string;
  readonly data: Readonly<Record<string, unknown>>;
}

interface World {
  readonly orders: Orders;
  readonly seen: Map<string, Seen>;
  readonly anomalies: Anomalies;
  /** Where directories for projects are made. */
  readonly folder: string;
}

/** A network that swallows everything never says that there is no connection. */
const patienceMs = 3_000;
/** More projects than this are not made; a connection may join 16. */
const maxProjects = 8;

/** Work of every kind; the last line of each says whose it is. */
const prompts = [
  "stream:60:2",
  "stream:400:1",
  "flood:200:300:1",
  "flood:3000:200",
  "big:200000",
  "bash:sleep 60",
  "child:sleep 60\nstream:30:2",
  "stubborn",
  'tool:Bash:{"command":"echo asked"}\nstream:10:1',
  "parallel:3",
];

/** A client that goes on for the whole test: connections come and go, what it has seen stays. */
export class Visitor {
  readonly mirrors = new Map<string, Mirror>();
  readonly #world: World;
  readonly #random: Random;
  /** Leaves out one event in so many, as a broken reader would. */
  readonly #dropEvery: number;
  readonly #waiting = new Map<string, (reply: Received) => void>();
  /** What it has asked to join on this connection. */
  readonly #joined = new Set<string>();
  #socket: WebSocket | undefined;
  #requests = 0;
  #frames = 0;
  connections = 0;

  constructor(world: World, random: Random, dropEvery = Infinity) {
    this.#world = world;
    this.#random = random;
    this.#dropEvery = dropEvery;
  }

  get events(): number {
    let sum = 0;
    for (const { events } of this.mirrors.values()) sum += events;
    return sum;
  }

  /** Asks for this and that, leaves and comes back, until the server is gone. */
  async visit(url: URL, isOver: () => boolean): Promise<void> {
    await this.#connect(url);
    while (!isOver()) {
      await Bun.sleep(this.#random.between(2, 30));
      if (isOver()) return;
      if (this.#socket?.readyState !== WebSocket.OPEN || this.#random.chance(0.04))
        await this.#connect(url);
      else this.#act();
    }
  }

  /** Reads until it has everything of every project there is. */
  async catchUp(url: URL): Promise<void> {
    await this.#connect(url);
    const isLevel = () => [...this.mirrors.values()].every(({ caughtUp }) => caughtUp);
    const deadline = performance.now() + 60_000;
    while (!isLevel() && performance.now() < deadline) await Bun.sleep(10);
    if (!isLevel()) this.#world.anomalies.report("otherwise wrong", "a client never caught up");
  }

  async #connect(url: URL): Promise<void> {
    this.#socket?.close();
    this.#waiting.clear();
    this.#joined.clear();
    const socket = new WebSocket(new URL("/ws", url.href.replace("http", "ws")));
    this.#socket = socket;
    const { promise, resolve } = Promise.withResolvers<void>();
    socket.addEventListener("open", () => resolve());
    // The server may be gone already, in which case the next round begins with a new connection.
    for (const end of ["close", "error"] as const) socket.addEventListener(end, () => resolve());
    socket.addEventListener("message", ({ data }) => {
      if (socket === this.#socket) this.#receive(String(data));
    });
    await Promise.race([promise, Bun.sleep(patienceMs)]);
    if (socket.readyState !== WebSocket.OPEN) return socket.close();
    this.connections += 1;
    const { open, prompts: all, round } = this.#world.orders;
    for (const project of this.mirrors.keys())
      if (!open.includes(project)) this.mirrors.delete(project);
    for (const project of open) this.#join(project);
    // What was never answered is sent again, as any client would.
    const unknown = all.filter((order) => order.outcome === "unknown" && order.round < round);
    for (const order of unknown.slice(-3)) if (this.#random.chance(0.3)) this.#sendPrompt(order);
  }

  #act(): void {
    const { orders } = this.#world;
    for (const project of orders.open) if (!this.#joined.has(project)) this.#join(project);
    const project = this.#random.pick(orders.open);
    const what = this.#random.next();
    if (what < 0.04 || !project) return orders.made < maxProjects ? this.#create() : undefined;
    // The oldest ones stay, so that something has a long history.
    if (what < 0.06 && orders.open.indexOf(project) > 2) return this.#delete(project);
    if (what < 0.16) return this.#request("agent_kill", { project_id: project, data: {} });
    if (what < 0.22) return this.#request("health", {});
    if (what > 0.4) return undefined;
    const text = this.#random.pick(prompts) ?? "";
    return this.#sendPrompt(orders.prompt(project, (id) => `${text}\nsay:${id}`));
  }

  #join(project: string): void {
    const { seen, anomalies } = this.#world;
    const known = seen.get(project) ?? new Map();
    seen.set(project, known);
    const mirror = this.mirrors.get(project) ?? new Mirror(project, { seen: known, anomalies });
    this.mirrors.set(project, mirror);
    this.#joined.add(project);
    mirror.caughtUp = false;
    const data = { ...mirror.position, deltas: this.#random.chance(0.5) };
    this.#request("project_join", { project_id: project, data }, (reply) => {
      if (reply.type === "error") this.#gone(project, reply);
      else mirror.joined({ resume: "", from: -1, epoch: "", ...reply.data });
      const { permissions } = reply.data;
      if (Array.isArray(permissions)) for (const asked of permissions) this.#answer(project, asked);
    });
  }

  /** Somebody answers, or nobody does and a kill is what ends it. */
  #answer(project: string, asked: Readonly<Record<string, unknown>>): void {
    if (!this.#random.chance(0.4)) return;
    const decision = this.#random.chance(0.7) ? "allow" : "deny";
    const data = { permission_id: asked["permission_id"], decision };
    this.#request("permission_response", { project_id: project, data });
  }

  /** A project that cannot be joined must have been deleted. */
  #gone(project: string, reply: Received): void {
    const order = this.#world.orders.named(project);
    if (!order || order.deletion === "no")
      this.#world.anomalies.report("lost", `project ${project}: ${JSON.stringify(reply.data)}`);
    this.mirrors.delete(project);
  }

  #sendPrompt(order: PromptOrder): void {
    const { execution_id, project, text: prompt } = order;
    // It must have joined: else it would be subscribed, at a place that it does not know.
    if (!this.#joined.has(project)) return;
    const data = { prompt, execution_id, queue: true };
    this.#request("execute", { project_id: project, data }, (reply) => {
      if (order.outcome === "acknowledged") return;
      if (reply.type !== "error") order.outcome = "acknowledged";
      // It may be in the log and not on the disk: the only one who knows is the server, asked again.
      else if (reply.data["code"] === "STORAGE_ERROR") return;
      // What was sent in an earlier round may have been accepted then.
      else if (order.round === this.#world.orders.round) order.outcome = "refused";
    });
  }

  #create(): void {
    const { orders, folder } = this.#world;
    const path = join(folder, crypto.randomUUID());
    mkdirSync(path);
    const order = orders.project(path);
    this.#request("project_create", { data: { path } }, (reply) => {
      if (reply.type !== "project_state") return;
      order.id = String(reply.data["id"]);
      order.creation = "acknowledged";
    });
  }

  #delete(project: string): void {
    const order = this.#world.orders.named(project);
    if (!order) return;
    order.deletion = "unknown";
    this.#request("project_delete", { project_id: project }, (reply) => settle(order, reply));
  }

  #request(type: string, rest: object, answered: (reply: Received) => void = () => undefined) {
    this.#requests += 1;
    const request_id = `r${this.#requests}`;
    this.#waiting.set(request_id, answered);
    this.#socket?.send(JSON.stringify({ type, request_id, ...rest }));
  }

  #receive(text: string): void {
    const frame: Received = JSON.parse(text);
    const { request_id, project_id = "", seq } = frame;
    if (frame.type === "project_deleted") this.mirrors.delete(project_id);
    if (request_id !== undefined) {
      this.#waiting.get(request_id)?.(frame);
      this.#waiting.delete(request_id);
    }
    if (seq !== undefined) this.#frames += 1;
    if (seq !== undefined && this.#frames % this.#dropEvery === 0) return;
    if (frame.type === "permission_request") this.#answer(project_id, frame.data);
    this.mirrors.get(project_id)?.receive(text, frame);
  }
}

function settle(order: ProjectOrder, reply: Received): void {
  if (reply.type === "project_deleted") order.deletion = "acknowledged";
  // Refused, because a run is in progress: it stays. Or somebody else was faster.
  else if (reply.data["code"] === "PROCESS_ACTIVE") order.deletion = "no";
}
