import type { Socket } from "bun";
import { connect, type Socket as NodeSocket } from "node:net";
import { peerPid } from "../adapters/peer.ts";
import { type LocalDoor, ticketHeader } from "./local-door.ts";

/**
 * Carries a caller of the local socket to the local door, no faster than either of them reads:
 * Bun upgrades only what its own server has accepted, and that does not tell who is calling.
 */
export class Tunnel<T> implements Disposable {
  readonly #caller: Socket<T>;
  readonly #inner: NodeSocket;
  #pending: Buffer = Buffer.alloc(0);
  /** What the caller sends until it is known who listens; undefined from then on. */
  #early: Uint8Array[] | undefined = [];
  #over = false;

  /** `head` is what the caller has sent so far: the first line of its request, and perhaps more. */
  constructor(caller: Socket<T>, head: Buffer, { path, ticket }: LocalDoor) {
    this.#caller = caller;
    const lineEnd = head.indexOf("\n") + 1;
    this.#inner = connect(path, () => {
      // Somebody else may have put a socket of their own there, to learn the ticket.
      if (peerPid(descriptorOf(this.#inner)) !== process.pid) {
        this.#inner.destroy();
        return;
      }
      this.#inner.write(head.subarray(0, lineEnd));
      this.#inner.write(`${ticketHeader}: ${ticket}\r\n`);
      this.#inner.write(head.subarray(lineEnd));
      const early = this.#early ?? [];
      this.#early = undefined;
      for (const bytes of early) this.toServer(bytes);
    });
    this.#inner.on("data", (bytes: Buffer) => this.#toCaller(bytes));
    this.#inner.on("drain", () => caller.resume());
    // Whatever went wrong, "close" follows.
    this.#inner.on("error", () => undefined);
    this.#inner.on("close", () => {
      this.#over = true;
      this.drained();
    });
  }

  [Symbol.dispose](): void {
    this.#inner.destroy();
  }

  /** Passes on what the caller has sent. */
  toServer(bytes: Uint8Array): void {
    if (this.#early) this.#early.push(Buffer.from(bytes));
    else if (!this.#inner.write(Buffer.from(bytes))) this.#caller.pause();
  }

  /** The caller has taken what it was sent. */
  drained(): void {
    const written = this.#caller.write(this.#pending);
    this.#pending = this.#pending.subarray(Math.max(0, written));
    if (this.#pending.length > 0) return;
    if (this.#over) this.#caller.end();
    else this.#inner.resume();
  }

  #toCaller(bytes: Buffer): void {
    this.#pending = Buffer.concat([this.#pending, bytes]);
    this.#inner.pause();
    this.drained();
  }
}

/** Of a connection; -1 if it cannot be told, which is nobody's. */
function descriptorOf(socket: NodeSocket): number {
  const { _handle: handle } = socket as { _handle?: { fd?: unknown } };
  return typeof handle?.fd === "number" ? handle.fd : -1;
}
