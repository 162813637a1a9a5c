import type { ClientType } from "../../src/contract/messages.ts";
import type { Frame } from "../support/client.ts";
import type { Witness } from "./witness.ts";

/** What a client has asked for and whether that was acknowledged. */
export interface Commands {
  /** Execution ids, and the project of each; sent again until there is a reply. */
  readonly sent: Map<string, string>;
  readonly acknowledged: Map<string, string>;
  readonly created: Map<string, string>;
  /** Those to be deleted, whether or not that was acknowledged. */
  readonly condemned: Set<string>;
  readonly deleted: Set<string>;
}

interface Surroundings {
  readonly url: () => URL | undefined;
  readonly projects: readonly string[];
  readonly directory: (name: string) => string;
  readonly random: () => number;
  readonly posting: () => boolean;
}

/** A client that never stops: it posts, drops, comes back, and sends again what had no reply. */
export class Poster {
  readonly witness: Witness;
  readonly commands: Commands = {
    sent: new Map(),
    acknowledged: new Map(),
    created: new Map(),
    condemned: new Set(),
    deleted: new Set(),
  };
  connections = 0;
  /** Whether it has everything, as far as it knows. */
  level = false;
  readonly #around: Surroundings;
  #stopped = false;

  constructor(witness: Witness, around: Surroundings) {
    this.witness = witness;
    this.#around = around;
  }

  stop(): void {
    this.#stopped = true;
  }

  async run(): Promise<void> {
    while (!this.#stopped) {
      const url = this.#around.url();
      if (url) await this.#connect(url);
      await Bun.sleep(5 + this.#around.random() * 25);
    }
  }

  async #connect(url: URL): Promise<void> {
    const socket = new WebSocket(new URL("/ws", url.href.replace("http", "ws")));
    const closed = new Promise<void>((resolve) => {
      socket.addEventListener("close", () => resolve());
    });
    const send: Send = (request) => socket.send(JSON.stringify(request));
    const caughtUp = new Set<string>();
    socket.addEventListener("message", ({ data }) => {
      const frame: Frame = JSON.parse(String(data));
      if (frame.type === "hello") this.#join(send);
      if (frame.type === "caught_up" && frame.project_id) caughtUp.add(frame.project_id);
      this.level = caughtUp.size === this.#around.projects.length && this.#pending.length === 0;
      if (frame.request_id) this.#reply(frame, frame.request_id);
      else this.witness.event(frame);
    });
    this.connections += 1;
    const until = performance.now() + 50 + this.#around.random() * 1_500;
    while (socket.readyState <= WebSocket.OPEN && !this.#stopped) {
      await Promise.race([closed, Bun.sleep(10 + this.#around.random() * 40)]);
      if (socket.readyState !== WebSocket.OPEN) continue;
      if (this.#around.posting()) this.#post(send);
      if (performance.now() > until && this.#around.posting()) socket.terminate();
    }
    this.level = false;
    socket.close();
    await Promise.race([closed, Bun.sleep(200)]);
  }

  get #pending(): [string, string][] {
    return [...this.commands.sent].filter(([id]) => !this.commands.acknowledged.has(id));
  }

  #join(send: Send): void {
    for (const project_id of this.#around.projects) {
      const data = this.witness.place(project_id);
      send({ type: "project_join", project_id, data, request_id: `join ${project_id}` });
    }
    for (const [execution_id, project] of this.#pending) this.#execute(send, project, execution_id);
  }

  #post(send: Send): void {
    const { random, projects, directory } = this.#around;
    const dice = random();
    const execution_id = crypto.randomUUID();
    const project = projects[Math.floor(random() * projects.length)];
    if (dice < 0.1) {
      const path = directory(execution_id);
      send({ type: "project_create", data: { path }, request_id: `create ${path}` });
    } else if (dice < 0.15) {
      const id = [...this.commands.created.values()].find(
        (made) => !this.commands.condemned.has(made),
      );
      if (!id) return;
      this.commands.condemned.add(id);
      send({ type: "project_delete", project_id: id, data: {}, request_id: `delete ${id}` });
    } else if (dice < 0.4 && project) {
      this.commands.sent.set(execution_id, project);
      this.#execute(send, project, execution_id);
    } else if (dice < 0.43 && project)
      send({ type: "agent_kill", project_id: project, data: {}, request_id: "kill" });
  }

  #execute(send: Send, project_id: string, execution_id: string): void {
    const data = {
      prompt: `say:${execution_id}
stream:20`,
      execution_id,
      queue: true,
    };
    send({ type: "execute", project_id, data, request_id: `execute ${execution_id}` });
  }

  #reply(frame: Frame, request: string): void {
    const [verb, id = ""] = request.split(" ", 2);
    if (frame.type === "error") {
      const { code } = frame.data;
      if (!(verb === "kill" && code === "PROCESS_NOT_FOUND"))
        this.witness.anomalies.push(`${request} was answered ${JSON.stringify(frame.data)}`);
      return;
    }
    if (verb === "execute") this.commands.acknowledged.set(id, this.commands.sent.get(id) ?? "");
    if (verb === "create" && frame.type === "project_state")
      this.commands.created.set(id, frame.data.id);
    if (verb === "delete") this.commands.deleted.add(id);
    if (verb === "join" && frame.type === "project_joined") this.witness.joined(id, frame.data);
  }
}

type Send = (request: {
  type: ClientType;
  project_id?: string;
  data: object;
  request_id: string;
}) => void;
