import type { ClientType, ServerData, ServerType } from "../contract/messages.ts";

/** A message of the server. */
export type Frame = {
  [T in ServerType]: {
    readonly type: T;
    readonly data: ServerData<T>;
    readonly timestamp: string;
    readonly project_id?: string;
    readonly request_id?: string;
    readonly seq?: number;
  };
}[ServerType];

/** What shows the server who is there. */
export interface Proof {
  readonly type: "auth_response" | "auth_token";
  readonly data: object;
}

/** A way to a server. */
export interface Door {
  /** Begins a connection. Rejects with Unreachable when it may be tried again. */
  readonly connect: () => Promise<WebSocket>;
  /** What to log in with, of which one after the other is tried. */
  readonly proofs: (hello: ServerData<"hello">) => AsyncIterable<Proof>;
  /** Takes the token for the next time. */
  readonly admitted: (token: string) => void;
}

/** Nobody answers, for now. */
export class Unreachable extends Error {
  override readonly name = "Unreachable";
}

/** The connection ended before the answer came: what was asked may be done or not. */
export class Lost extends Error {
  override readonly name = "Lost";
}

/** The server's own words on why it does not do something. */
export class Refused extends Error {
  override readonly name = "Refused";
  readonly code: string;
  readonly details: Readonly<Record<string, unknown>>;

  constructor({ code, message, details = {} }: ServerData<"error">) {
    super(message);
    this.code = code;
    this.details = details;
  }
}

/** Everybody who is connected is told something every ten seconds. */
const silenceMs = 35_000;

/** One connection that has logged in. */
export class Wire implements Disposable {
  /** Why it ended, once it has. */
  readonly closed: Promise<{ readonly code: number; readonly reason: string }>;
  readonly #socket: WebSocket;
  readonly #hear: (frame: Frame) => void;
  readonly #hello = Promise.withResolvers<ServerData<"hello">>();
  readonly #waiting = new Map<string, PromiseWithResolvers<Frame>>();
  readonly #watch: Timer;
  #requests = 0;
  #heardAt = performance.now();

  private constructor(socket: WebSocket, hear: (frame: Frame) => void) {
    this.#socket = socket;
    this.#hear = hear;
    this.#hello.promise.catch(() => undefined);
    socket.addEventListener("message", ({ data }) => this.#take(String(data)));
    this.closed = new Promise((resolve) =>
      socket.addEventListener("close", ({ code, reason }) => {
        this.#end(new Lost("Cannot get an answer: the connection was lost"));
        resolve({ code, reason });
      }),
    );
    this.#watch = setInterval(() => {
      if (performance.now() - this.#heardAt > silenceMs) socket.terminate();
    }, silenceMs / 10);
  }

  /** Connects and logs in; whatever comes is given to `hear`, in order. */
  static async open(door: Door, hear: (frame: Frame) => void): Promise<Wire> {
    const wire = new Wire(await door.connect(), hear);
    try {
      const hello = await wire.#hello.promise;
      if (hello.auth.required) door.admitted(await wire.#logIn(door.proofs(hello)));
      return wire;
    } catch (error) {
      wire[Symbol.dispose]();
      if (error instanceof Lost) throw new Unreachable(error.message, { cause: error });
      throw error;
    }
  }

  /** Asks for something, and gives the one answer. Rejects with Refused, or Lost. */
  async ask(type: ClientType, rest: { project_id?: string; data?: object } = {}): Promise<Frame> {
    if (this.#socket.readyState !== WebSocket.OPEN)
      throw new Lost("Cannot ask the server: the connection was lost");
    this.#requests += 1;
    const request_id = String(this.#requests);
    const answer = Promise.withResolvers<Frame>();
    this.#waiting.set(request_id, answer);
    this.#socket.send(JSON.stringify({ type, request_id, ...rest }));
    const frame = await answer.promise;
    if (frame.type === "error") throw new Refused(frame.data);
    return frame;
  }

  [Symbol.dispose](): void {
    this.#end(new Lost("Cannot get an answer: the connection was closed"));
    this.#socket.close(1000);
  }

  async #logIn(proofs: AsyncIterable<Proof>): Promise<string> {
    let refusal: Refused | undefined;
    for await (const { type, data } of proofs) {
      try {
        const answer = await this.ask(type, { data });
        if (answer.type === "auth_success") return answer.data.token;
      } catch (error) {
        if (!(error instanceof Refused) || error.code !== "UNAUTHORIZED") throw error;
        refusal = error;
      }
    }
    throw refusal ?? new Error("Cannot log in: there is nothing to show who you are");
  }

  #take(text: string): void {
    this.#heardAt = performance.now();
    const frame = frameOf(text);
    if (!frame) return this.#socket.close(4400, "that is no message");
    if (frame.type === "hello") this.#hello.resolve(frame.data);
    this.#hear(frame);
    const { request_id } = frame;
    if (request_id === undefined) return;
    this.#waiting.get(request_id)?.resolve(frame);
    this.#waiting.delete(request_id);
  }

  #end(error: Lost): void {
    clearInterval(this.#watch);
    this.#hello.reject(error);
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}

/** Resolves once a socket is open; rejects with Unreachable and a sentence when it does not open. */
export async function opened(socket: WebSocket, name: string): Promise<WebSocket> {
  const { promise, resolve, reject } = Promise.withResolvers<WebSocket>();
  let reason = "nobody answers";
  socket.addEventListener("open", () => resolve(socket));
  socket.addEventListener("error", (event) => {
    if ("message" in event) reason = event.message.replace(/^.*? failed: /, "");
  });
  socket.addEventListener("close", () =>
    reject(new Unreachable(`Cannot connect to ${name}: ${reason}`)),
  );
  return await promise;
}

/** A message with a type and data; undefined for what is none. Whose fields are what is not looked at. */
function frameOf(text: string): Frame | undefined {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const { type, data } = Object(value) as Partial<Frame>;
  const fits = typeof type === "string" && typeof data === "object" && data !== null;
  // The one cast: this is what the server's contract says that it sends.
  return fits ? (value as Frame) : undefined;
}
