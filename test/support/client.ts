import * as v from "valibot";
import {
  type ClientType,
  type ServerData,
  type ServerType,
  serverMessages,
} from "../../src/contract/messages.ts";

export type Frame<T extends ServerType = ServerType> = {
  [K in T]: {
    type: K;
    data: ServerData<K>;
    timestamp: string;
    project_id?: string;
    request_id?: string;
    seq?: number;
  };
}[T];

const envelope = v.strictObject({
  type: v.picklist(Object.keys(serverMessages)),
  project_id: v.optional(v.pipe(v.string(), v.uuid())),
  request_id: v.optional(v.string()),
  seq: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1))),
  timestamp: v.pipe(v.string(), v.regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)),
  data: v.looseObject({}),
});

/** A client that checks every frame it receives against the contract, so each test is a contract test. */
export class Client implements AsyncDisposable {
  readonly socket: WebSocket;
  /** Everything received so far, in order. */
  readonly received: Frame[] = [];
  readonly closed: Promise<CloseEvent>;
  /** How long it waits for a frame. */
  patienceMs = 10_000;
  /** The first frame that breaks the contract. */
  problem: unknown;
  #taken = 0;
  #requests = 0;
  #wake = Promise.withResolvers<void>();

  private constructor(socket: WebSocket) {
    this.socket = socket;
    this.closed = new Promise((resolve) => socket.addEventListener("close", resolve));
    void this.closed.then(() => this.#wake.resolve());
    socket.addEventListener("message", ({ data }) => this.#receive(String(data)));
  }

  /** Connects, and waits for the first frame. `ca` is the certificate that a server has made. */
  static async connect(
    base: URL,
    { protocols = [], ca }: { protocols?: string[]; ca?: string | undefined } = {},
  ): Promise<Client> {
    const url = new URL("/ws", base.href.replace("http", "ws"));
    return await Client.#on(new WebSocket(url, { protocols, ...(ca && { tls: { ca } }) }));
  }

  /** Connects through the local socket. */
  static async local(path: string): Promise<Client> {
    return await Client.#on(new WebSocket(`ws+unix://${path}:/ws`));
  }

  static async #on(socket: WebSocket): Promise<Client> {
    const client = new Client(socket);
    await client.next("hello");
    return client;
  }

  send(type: ClientType, rest: object = {}): void {
    this.socket.send(JSON.stringify({ type, ...rest }));
  }

  /** Sends a request and gives its one reply, or error. */
  async ask(type: ClientType, rest: { project_id?: string; data?: unknown } = {}): Promise<Frame> {
    this.#requests += 1;
    const request_id = `r${this.#requests}`;
    this.send(type, { ...rest, request_id });
    return await this.find((frame) => frame.request_id === request_id, `the reply to ${type}`);
  }

  /** Sends a request that must succeed with a reply of this type. */
  async expect<T extends ServerType>(
    reply: T,
    type: ClientType,
    rest: { project_id?: string; data?: unknown } = {},
  ): Promise<Frame<T>> {
    const frame = await this.ask(type, rest);
    if (frame.type !== reply)
      throw new Error(`Expected ${reply}, got ${JSON.stringify(frame).slice(0, 500)}`);
    // The type was just compared.
    return frame as Frame<T>;
  }

  /** Makes a project of a directory and gives its id. */
  async create(path: string, rest: object = {}): Promise<string> {
    const { data } = await this.expect("project_state", "project_create", {
      data: { path, ...rest },
    });
    return data.id;
  }

  /** Takes the next frame of this type that no earlier `next` has taken or passed by. */
  async next<T extends ServerType>(
    type: T,
    where: (frame: Frame<T>) => boolean = () => true,
  ): Promise<Frame<T>> {
    const matches = (frame: Frame) => frame.type === type && where(frame as Frame<T>);
    const found = await this.find(matches, type, this.#taken);
    this.#taken = this.received.indexOf(found) + 1;
    return found as Frame<T>;
  }

  /** The first frame received, or yet to come, that matches. */
  async find(matches: (frame: Frame) => boolean, what: string, from = 0): Promise<Frame> {
    const signal = AbortSignal.timeout(this.patienceMs);
    for (let at = from; ;) {
      for (; at < this.received.length; at += 1) {
        const frame = this.received[at];
        if (frame && matches(frame)) return frame;
      }
      if (this.problem) throw new Error("A frame breaks the contract", { cause: this.problem });
      if (signal.aborted || this.socket.readyState > WebSocket.OPEN)
        throw new Error(`No ${what} came; last: ${this.#last()}`);
      await Promise.race([this.#wake.promise, Bun.sleep(200)]);
    }
  }

  /** Waits until a project is no longer executing after an event, and gives that state. */
  async settled(project_id: string, after = 0): Promise<ServerData<"project_state">> {
    const { data } = await this.next(
      "project_state",
      (frame) =>
        frame.project_id === project_id &&
        frame.seq !== undefined &&
        frame.seq > after &&
        frame.data.state !== "EXECUTING",
    );
    return data;
  }

  /** Runs a prompt to its end, and gives the state that it led to. */
  async run(
    project_id: string,
    prompt: string,
    rest: object = {},
  ): Promise<ServerData<"project_state">> {
    const { data } = await this.expect("project_state", "execute", {
      project_id,
      data: { prompt, ...rest },
    });
    return await this.settled(project_id, data.last_seq);
  }

  /** The logged events of a project, as received. */
  events(project_id: string): Frame[] {
    return this.received.filter(
      (frame) => frame.project_id === project_id && frame.seq !== undefined,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.socket.close();
    await Promise.race([this.closed, Bun.sleep(1000)]);
    if (this.problem) throw new Error("A frame breaks the contract", { cause: this.problem });
  }

  #receive(text: string): void {
    const frame = JSON.parse(text);
    try {
      const { type } = v.parse(envelope, frame);
      // The picklist above has checked it.
      v.parse(serverMessages[type as ServerType].data, frame.data);
    } catch (error) {
      this.problem ??= new Error(`${String(error)}: ${text.slice(0, 500)}`);
    }
    this.received.push(frame);
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }

  #last(): string {
    return JSON.stringify(this.received.slice(-5)).slice(0, 2000);
  }
}
