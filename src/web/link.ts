import { signal } from "@preact/signals";
import type * as v from "valibot";
import type { clientMessages, ServerData, ServerType } from "../contract/messages.ts";
import {
  authenticate,
  type Binding,
  digitsOf,
  fingerprintOf,
  forgetIdentity,
  type Identity,
  keyBlob,
  loadIdentity,
  loginText,
  newKeys,
  pairingTexts,
  saveIdentity,
  sign,
} from "./device-key.ts";
import { base64 } from "./ssh-wire.ts";

type Requests = typeof clientMessages;
export type RequestType = keyof Requests;
export type RequestData<T extends RequestType> = v.InferInput<Requests[T]["data"]>;
export type Reply<T extends RequestType> = ServerData<Requests[T]["reply"]>;

/** A frame of the server, its data not yet narrowed. */
export interface Frame {
  readonly type: ServerType;
  readonly project_id?: string;
  readonly data: Readonly<Record<string, unknown>>;
  readonly request_id?: string;
  readonly seq?: number;
  readonly timestamp: string;
  /** In characters. */
  readonly size: number;
}

/** How it stands between this page and the server. */
export type Standing =
  | { readonly at: "connecting" }
  | { readonly at: "online" }
  /** It tries again by itself, at a time in ms since 1970. */
  | { readonly at: "offline"; readonly why: string; readonly retryAt: number }
  /** The device is not let in as it is; `why` if it tried. */
  | { readonly at: "door"; readonly why?: string }
  /** The new device's key has these digits; somebody at the server has to say yes. */
  | { readonly at: "pairing"; readonly digits: string };

/** A request that was refused, or that nobody answered (`OFFLINE`). */
export class Refusal extends Error {
  readonly code: string;
  /** The connection was ended because a frame on it was too large, which this request may have been. */
  readonly tooLarge: boolean;

  constructor(code: string, message: string, tooLarge = false) {
    super(message);
    this.code = code;
    this.tooLarge = tooLarge;
  }
}

export type Device = ServerData<"auth_success">["device"];
interface Attempt {
  readonly code: Uint8Array<ArrayBuffer>;
  readonly name: string;
  readonly fingerprint: string | undefined;
}
interface Waiting {
  readonly resolve: (data: never) => void;
  readonly reject: (reason: Refusal) => void;
}

const silenceMs = 25_000;
const connectMs = 15_000;
/** A code is good for two minutes; after that nobody says yes any more. */
const pairingMs = 130_000;

/** The one connection: in by key, back after every loss, and a reply for each request. */
export class Link {
  readonly standing = signal<Standing>({ at: "connecting" });
  /** Who this is to the server; undefined where everybody is its owner. */
  readonly device = signal<Device | undefined>(undefined);
  /** Of this device's key. */
  readonly fingerprint = signal("");
  readonly server = signal<ServerData<"hello">["server"] | undefined>(undefined);
  readonly roundTripMs = signal<number | undefined>(undefined);
  /** Called for every frame that is not a reply. */
  onFrame: (frame: Frame) => void = () => {};
  /** Called each time it is in. */
  onIn: () => void = () => {};
  readonly #waiting = new Map<string, Waiting>();
  #socket: WebSocket | undefined;
  #pairing: Attempt | undefined;
  #heardAt = 0;
  #losses = 0;
  #requests = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;

  /** Connects, and from then on stays connected as far as it can. */
  start(): void {
    setInterval(() => this.#watch(), 5_000);
    for (const type of ["online", "pageshow"]) addEventListener(type, () => this.wake());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.wake();
    });
    this.#connect();
  }

  /** After sleep or another network, a connection may be gone without anybody having said so. */
  wake(): void {
    const { at } = this.standing.value;
    if (at === "offline") this.#connect();
    else if (at === "online") void this.#probe(4_000);
  }

  /** Logs in again with the key that is here. */
  knock(): void {
    this.#pairing = undefined;
    this.#connect();
  }

  /** Becomes a device of the server with the code that it shows. `fingerprint`: if a QR code told it. */
  pair(attempt: Attempt): void {
    this.#pairing = attempt;
    this.#connect();
  }

  /** Ends a pairing that somebody is asked about. */
  giveUp(): void {
    this.#pairing = undefined;
    this.#drop({ at: "door" });
  }

  /** Forgets the key: this browser is then nobody to the server. */
  async leave(): Promise<void> {
    await forgetIdentity();
    this.#drop({ at: "door", why: "This browser has forgotten its key." });
  }

  /** Sends a request. Throws a Refusal. */
  async request<T extends RequestType>(
    type: T,
    { project, data }: { project?: string; data?: RequestData<T> } = {},
  ): Promise<Reply<T>> {
    if (this.standing.value.at !== "online")
      throw new Refusal("OFFLINE", "There is no connection to the server");
    return await this.#ask(type, { project_id: project, data });
  }

  async #ask<T extends RequestType>(type: T, fields: object): Promise<Reply<T>> {
    this.#requests += 1;
    const request_id = String(this.#requests);
    const reply = new Promise<Reply<T>>((resolve, reject) => {
      this.#waiting.set(request_id, { resolve, reject });
    });
    this.#socket?.send(JSON.stringify({ type, request_id, ...fields }));
    return await reply;
  }

  #connect(): void {
    this.#drop({ at: "connecting" });
    const socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/ws");
    this.#socket = socket;
    this.#heardAt = Date.now();
    socket.addEventListener("message", ({ data }) => {
      const text = String(data);
      if (socket === this.#socket)
        this.#receive({ ...(JSON.parse(text) as Frame), size: text.length });
    });
    socket.addEventListener("close", ({ code }) => {
      if (socket === this.#socket) void this.#closed(code);
    });
  }

  /** Ends what there is of a connection; nobody waits for its answers any more. */
  #drop(standing: Standing, tooLarge = false): void {
    clearTimeout(this.#retry);
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.close();
    this.standing.value = standing;
    for (const { reject } of this.#waiting.values())
      reject(new Refusal("OFFLINE", "The connection was lost", tooLarge));
    this.#waiting.clear();
  }

  #receive(frame: Frame): void {
    this.#heardAt = Date.now();
    if (frame.type === "hello") return void this.#greeted(frame.data as ServerData<"hello">);
    const waiting = this.#waiting.get(frame.request_id ?? "");
    if (!waiting) return this.onFrame(frame);
    this.#waiting.delete(frame.request_id ?? "");
    // A join is followed by its replay: the rest of the frames must not overtake the reply.
    if (frame.type === "project_joined") this.onFrame(frame);
    if (frame.type !== "error") return waiting.resolve(frame.data as never);
    waiting.reject(new Refusal(String(frame.data["code"]), String(frame.data["message"])));
  }

  async #greeted({ auth, server }: ServerData<"hello">): Promise<void> {
    this.server.value = server;
    if (!auth.required) return this.#in(undefined);
    if (!crypto.subtle)
      return this.#drop({
        at: "door",
        why: "This page has no keys of its own, because it came over plain HTTP. Open it with https://.",
      });
    const challenge = auth.challenge ?? "";
    const binding = { audience: location.host, server: server.id, challenge };
    try {
      if (this.#pairing) return this.#in(await this.#pair(this.#pairing, binding));
      const identity = await loadIdentity();
      if (identity) return this.#in(await this.#login(identity, binding));
      this.#drop({ at: "door" });
    } catch (cause) {
      this.#refused(cause);
    }
  }

  async #login({ keys, server }: Identity, binding: Binding): Promise<Device> {
    if (server !== binding.server) throw new Refusal("CHANGED", serverChanged);
    const blob = await keyBlob(keys);
    this.fingerprint.value = await fingerprintOf(blob);
    const public_key = base64(blob);
    const signature = await sign(keys, loginText(binding), "auth@pocket-agent");
    return (await this.#ask("auth_response", { data: { public_key, signature } })).device;
  }

  async #pair({ code, name, fingerprint }: Attempt, binding: Binding): Promise<Device> {
    if (fingerprint && fingerprint !== binding.server) throw new Refusal("CHANGED", serverOther);
    const keys = await newKeys();
    const blob = await keyBlob(keys);
    const texts = pairingTexts(binding, { blob, name });
    const signature = await sign(keys, texts.ours, "pair@pocket-agent");
    const mac = await authenticate(code, texts.ours);
    this.standing.value = { at: "pairing", digits: await digitsOf(blob) };
    const data = { public_key: base64(blob), name, signature, mac };
    const { device, server_mac } = await this.#ask("auth_pair", { data });
    if (server_mac !== (await authenticate(code, texts.theirs)))
      throw new Refusal("CHANGED", "Whoever answered does not know the code. Nothing was saved.");
    await saveIdentity({ keys, server: binding.server });
    this.fingerprint.value = await fingerprintOf(blob);
    this.#pairing = undefined;
    return device;
  }

  #in(device: Device | undefined): void {
    this.#losses = 0;
    this.device.value = device;
    this.standing.value = { at: "online" };
    this.onIn();
    void this.#probe(connectMs);
  }

  #refused(cause: unknown): void {
    if (!(cause instanceof Refusal)) throw cause;
    if (cause.code === "OFFLINE") return;
    const failed = this.#pairing !== undefined;
    this.#pairing = undefined;
    if (cause.code === "RATE_LIMITED" && !failed) return this.#lost(cause.message);
    this.#drop({ at: "door", why: cause.message });
  }

  async #closed(code: number): Promise<void> {
    if (code === 4403) {
      await forgetIdentity();
      return this.#drop({ at: "door", why: "This device was revoked." });
    }
    if (code === 4400 || code === 4401) {
      this.#pairing = undefined;
      return this.#drop({ at: "door", why: "The server has closed the door. Try again." });
    }
    if (this.#pairing) {
      this.#pairing = undefined;
      const why = "The connection was lost while waiting. Ask for another code and try again.";
      return this.#drop({ at: "door", why });
    }
    this.#lost(code === 1001 ? "The server is going down" : "The connection was lost", code);
  }

  #lost(why: string, code?: number): void {
    this.#losses += 1;
    const ceilingMs = Math.min(15_000, 500 * 2 ** this.#losses);
    const ms = code === 4429 ? 15_000 : ceilingMs * (0.5 + Math.random() / 2);
    this.#drop({ at: "offline", why, retryAt: Date.now() + ms }, code === 1009);
    this.#retry = setTimeout(() => this.#connect(), ms);
  }

  #watch(): void {
    const { at } = this.standing.value;
    const silent = Date.now() - this.#heardAt;
    if (at === "pairing" && silent > pairingMs) {
      this.#pairing = undefined;
      this.#drop({ at: "door", why: "Nobody has answered. Ask for another code and try again." });
    }
    if (at === "connecting" && silent > connectMs) this.#lost("The server does not answer");
    if (at !== "online") return;
    if (silent > silenceMs) this.#lost("The server has gone silent");
    else if (!document.hidden) void this.#probe(connectMs);
  }

  async #probe(withinMs: number): Promise<void> {
    const socket = this.#socket;
    const from = performance.now();
    const late = setTimeout(() => {
      if (socket === this.#socket) this.#lost("The server does not answer");
    }, withinMs);
    try {
      await this.#ask("ping", {});
      this.roundTripMs.value = performance.now() - from;
    } catch (cause) {
      if (!(cause instanceof Refusal)) throw cause;
      this.roundTripMs.value = undefined;
    } finally {
      clearTimeout(late);
    }
  }
}

const serverChanged =
  "The server's key is another one than when this device was paired. Either the server was set up anew, or somebody stands between. If you know why, pair again.";
const serverOther =
  "The server's key is not the one in the QR code: somebody may stand between. Nothing was sent.";
