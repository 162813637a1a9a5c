import type { Socket, UnixSocketListener } from "bun";
import { chmodSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import * as v from "valibot";
import type { Access } from "../access/access.ts";
import type { Device } from "../access/devices.ts";
import { pairingOffer } from "../access/pairing-offer.ts";
import type { Candidate, PairingEnd } from "../access/pairing.ts";
import { LineSplitter } from "../adapters/lines.ts";
import { isAgents, peerPid } from "../adapters/peer.ts";
import { Fault } from "../contract/errors.ts";
import { type Scope, scopes } from "../contract/messages.ts";
import type { Config } from "../contract/options.ts";
import type { Clock, Telemetry } from "../core/ports.ts";
import type { Projects } from "../core/projects.ts";
import { RateLimit } from "../core/rate-limit.ts";
import type { ConnectedClients } from "./clients.ts";
import type { Revoke } from "./handlers.ts";
import { type LocalDoor, prepareFolder } from "./local-door.ts";
import { operate, type Operation, operations } from "./operations.ts";
import { Tunnel } from "./tunnel.ts";

/** How a code came to its end: with a device, or why without one. */
export type PairingEnding =
  | { readonly device: { readonly id: string; readonly name: string; readonly scope: Scope } }
  | { readonly end: PairingEnd };

interface ControlParts {
  readonly config: Config;
  readonly clock: Clock;
  readonly log: Telemetry["log"];
  readonly access: Access;
  readonly clients: ConnectedClients;
  readonly projects: Projects;
  readonly revoke: Revoke;
  /** Where to listen, and where clients are listened to. */
  readonly path: string;
  readonly port: number;
  /** Where callers go who want to be clients. */
  readonly door: LocalDoor;
}

/** One caller: what it has sent, what it has not taken yet, and what it is asked. */
interface Caller {
  readonly splitter: LineSplitter;
  readonly late: Disposable;
  /** What came before the end of its first line, which tells a client from a command. */
  opening: Buffer | undefined;
  tunnel: Tunnel<Caller | undefined> | undefined;
  pending: Buffer;
  /** Why nothing will be done for it; said when it asks, so that it is not cut off in the middle. */
  refusal: string | undefined;
  asked: boolean;
  closing: boolean;
  answer: ((yes: boolean) => void) | undefined;
  gone: (() => void) | undefined;
}

const request = v.variant("operation", [
  v.strictObject({
    operation: v.literal("pair"),
    input: v.strictObject({ scope: v.picklist(scopes) }),
  }),
  v.strictObject({
    operation: v.picklist(Object.keys(operations) as Operation[]),
    input: v.record(v.string(), v.unknown()),
  }),
]);
const confirmation = v.strictObject({ confirm: v.boolean() });

/** How a client begins; the line is complete with it. */
const upgrade = Buffer.from("GET /ws HTTP/1.1\r\n");
const maxCallers = 32;
const progressMs = 500;
const maxLineBytes = 1024 * 1024;
/** Programs of this machine ask at once. */
const askWithinMs = 10_000;
/** People look at the device first. */
const confirmWithinMs = 120_000;

/**
 * The local socket, by which the owner of this machine says who may come in. It is for this
 * account alone, and not for agents that run under it.
 */
export class Control implements Disposable {
  readonly #parts: ControlParts;
  readonly #listener: UnixSocketListener<Caller | undefined>;
  /** As many are noted as of a client: an agent must not be able to fill the disk. */
  readonly #refusals: RateLimit;
  readonly #callers = new Set<object>();
  /** Those whose question is only waited for to refuse it. */
  readonly #refused = new Set<object>();

  /** Listens at `path`, whose data directory is locked: what is there is left from a crash. */
  constructor(parts: ControlParts) {
    this.#parts = parts;
    this.#refusals = new RateLimit(parts.clock, 1, 20);
    const { path } = parts;
    prepareFolder(dirname(path));
    rmSync(path, { force: true });
    this.#listener = Bun.listen<Caller | undefined>({
      unix: path,
      data: undefined,
      socket: {
        open: (socket) => this.#open(socket),
        data: (socket, chunk) => this.#read(socket, chunk),
        drain: (socket) => (socket.data?.tunnel ? socket.data.tunnel.drained() : flush(socket)),
        close: (socket) => this.#close(socket),
        error: (_, error) => parts.log("warn", "the local socket failed", { error }),
      },
    });
    chmodSync(path, 0o600);
  }

  [Symbol.dispose](): void {
    this.#listener.stop(true);
    rmSync(this.#parts.path, { force: true });
  }

  #open(socket: Socket<Caller | undefined>): void {
    const { clock } = this.#parts;
    const refusal = this.#refusal(peerPid(descriptorOf(socket)));
    // They hear it when they have asked, but not in the places of those who are let in.
    const places = refusal === undefined ? this.#callers : this.#refused;
    if (places.size >= maxCallers)
      return void socket.end('{"error":{"message":"Cannot take more callers at a time"}}\n');
    places.add(socket);
    socket.data = {
      splitter: new LineSplitter(maxLineBytes),
      late: clock.after(askWithinMs, () => {
        if (!socket.data?.asked) refuse(socket, "Cannot wait any longer: nothing was asked");
      }),
      opening: Buffer.alloc(0),
      tunnel: undefined,
      pending: Buffer.alloc(0),
      refusal,
      asked: false,
      closing: false,
      answer: undefined,
      gone: undefined,
    };
  }

  #refusal(pid: number | undefined): string | undefined {
    if (pid !== undefined && !isAgents(pid)) return undefined;
    const reason = "the local socket is not for agents";
    if (this.#refusals.take() === 0) this.#parts.access.audit.record("refusal", { reason, pid });
    return pid === undefined
      ? "Cannot tell which program is asking"
      : "Cannot do that for an agent, or for anything that an agent has started";
  }

  #read(socket: Socket<Caller | undefined>, chunk: Uint8Array): void {
    const caller = socket.data;
    if (!caller || caller.closing) return;
    if (caller.refusal !== undefined) return refuse(socket, caller.refusal);
    if (caller.tunnel) return caller.tunnel.toServer(chunk);
    if (!caller.opening) return this.#lines(socket, caller, chunk);
    const opening = Buffer.concat([caller.opening, chunk]);
    caller.opening = opening;
    if (opening.length < upgrade.length && !opening.includes("\n")) return;
    caller.opening = undefined;
    if (opening.subarray(0, upgrade.length).equals(upgrade)) this.#admit(socket, caller, opening);
    else this.#lines(socket, caller, opening);
  }

  /** A client of the one protocol that all clients speak, who is the owner of this machine. */
  #admit(socket: Socket<Caller | undefined>, caller: Caller, opening: Buffer): void {
    const tunnel = new Tunnel(socket, opening, this.#parts.door);
    caller.asked = true;
    caller.tunnel = tunnel;
    caller.gone = () => tunnel[Symbol.dispose]();
  }

  #lines(socket: Socket<Caller | undefined>, caller: Caller, chunk: Uint8Array): void {
    for (const { text } of caller.splitter.push(chunk)) this.#line(socket, caller, text);
  }

  #line(socket: Socket<Caller | undefined>, caller: Caller, text: string | null): void {
    if (caller.answer) {
      const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), confirmation), text);
      caller.answer(parsed.success && parsed.output.confirm);
      return;
    }
    if (caller.asked) return refuse(socket, "Cannot take a second request on one connection");
    const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), request), text);
    if (!parsed.success)
      return refuse(socket, `Cannot read the request: ${parsed.issues[0].message}`);
    caller.asked = true;
    const { output } = parsed;
    if (output.operation === "pair") return this.#pair(socket, caller, output.input.scope);
    void this.#operate(socket, output.operation, output.input);
  }

  async #operate(
    socket: Socket<Caller | undefined>,
    operation: Operation,
    input: unknown,
  ): Promise<void> {
    const { clients, clock } = this.#parts;
    let told = clock.monotonic();
    const progress = (bytes: number, of: number) => {
      if (clock.monotonic() - told < progressMs) return;
      told = clock.monotonic();
      send(socket, { progress: { bytes, of } });
    };
    const connected = (id: string) => clients.has(id);
    try {
      end(socket, {
        result: await operate(operation, input, { ...this.#parts, connected, progress }),
      });
    } catch (error) {
      if (!(error instanceof Fault)) this.#parts.log("warn", "a local request failed", { error });
      refuse(socket, error instanceof Error ? error.message : String(error));
    }
  }

  #pair(socket: Socket<Caller | undefined>, caller: Caller, scope: Scope): void {
    const { access, clock, config, port } = this.#parts;
    const confirm = (candidate: Candidate) =>
      new Promise<boolean>((resolve) => {
        // Nobody may be at the terminal any more, and a device must not wait for ever.
        const late = clock.after(confirmWithinMs, () => caller.answer?.(false));
        caller.answer = (yes) => {
          caller.answer = undefined;
          late[Symbol.dispose]();
          resolve(yes);
        };
        send(socket, { candidate });
      });
    const ended = (how: Device | PairingEnd) =>
      end(socket, { result: typeof how === "string" ? { end: how } : { device: how } });
    const { close, ...code } = access.pairing.open({ scope, confirm, ended });
    caller.gone = () => {
      caller.answer?.(false);
      close();
    };
    const { serverId: fingerprint } = access;
    send(socket, { offer: pairingOffer(config, { port, fingerprint }, code) });
  }

  #close(socket: Socket<Caller | undefined>): void {
    this.#callers.delete(socket);
    this.#refused.delete(socket);
    socket.data?.late[Symbol.dispose]();
    socket.data?.gone?.();
  }
}

/** Bun's types do not have it. */
function descriptorOf(socket: object): number {
  return "fd" in socket && typeof socket.fd === "number" ? socket.fd : -1;
}

function send(socket: Socket<Caller | undefined>, message: object): void {
  const { data: caller } = socket;
  if (!caller) return;
  caller.pending = Buffer.concat([caller.pending, Buffer.from(`${JSON.stringify(message)}\n`)]);
  flush(socket);
}

/** Says the last thing, and hangs up when it is said. */
function end(socket: Socket<Caller | undefined>, message: object): void {
  if (!socket.data || socket.data.closing) return;
  socket.data.closing = true;
  send(socket, message);
}

function refuse(socket: Socket<Caller | undefined>, message: string): void {
  end(socket, { error: { message } });
}

function flush(socket: Socket<Caller | undefined>): void {
  const { data: caller } = socket;
  if (!caller) return;
  const written = socket.write(caller.pending);
  caller.pending = caller.pending.subarray(Math.max(0, written));
  if (caller.closing && caller.pending.length === 0) socket.end();
}
