import { connect } from "node:net";
import { createInterface } from "node:readline";
import { findSocket } from "../adapters/control-path.ts";
import type { Candidate } from "../access/pairing.ts";
import type { Scope } from "../contract/messages.ts";
import type { PairingOffer } from "../access/pairing-offer.ts";
import type { PairingEnding } from "../edge/control.ts";
import type { Operation, Results } from "../edge/operations.ts";

interface Message {
  readonly result?: unknown;
  readonly error?: { readonly message: string };
  readonly offer?: PairingOffer;
  readonly candidate?: Candidate;
  readonly progress?: { readonly bytes: number; readonly of: number };
}

/** What the terminal does while a device is being paired. */
export interface PairingDialogue {
  readonly show: (offer: PairingOffer) => void;
  readonly confirm: (candidate: Candidate) => Promise<boolean>;
}

/** The running server of a data directory, spoken to through its local socket. */
export class ControlClient implements Disposable {
  readonly #socket: ReturnType<typeof connect>;
  readonly #messages: AsyncIterator<Message>;

  private constructor(socket: ReturnType<typeof connect>) {
    this.#socket = socket;
    this.#messages = read(socket);
  }

  /** Undefined when no server is running there. Rejects when it may be somebody else's. */
  static async connect(path: string): Promise<ControlClient | undefined> {
    if (!findSocket(path)) return undefined;
    const socket = connect(path);
    const { promise, resolve, reject } = Promise.withResolvers<boolean>();
    socket.once("connect", () => resolve(true));
    socket.on("error", (error: NodeJS.ErrnoException) => {
      // None at all, or what a server left that was killed.
      if (error.code === "ENOENT" || error.code === "ECONNREFUSED") resolve(false);
      else reject(new Error(`Cannot speak to the server: ${error.message}`, { cause: error }));
    });
    return (await promise) ? new ControlClient(socket) : undefined;
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  /** Asks for one thing, and gives the answer; rejects with the server's own sentence. */
  async ask<O extends Operation>(
    operation: O,
    input: object,
    progress: (bytes: number, of: number) => void = () => undefined,
  ): Promise<Results[O]> {
    this.#send({ operation, input });
    for (;;) {
      // oxlint-disable-next-line no-await-in-loop -- one message follows the other
      const message = await this.#next();
      // The one cast: the same program wrote it.
      if (!message.progress) return message.result as Results[O];
      progress(message.progress.bytes, message.progress.of);
    }
  }

  /** Has a code made and shown, and resolves when it has brought a device or is over. */
  async pair(scope: Scope, dialogue: PairingDialogue): Promise<PairingEnding> {
    this.#send({ operation: "pair", input: { scope } });
    for (;;) {
      // oxlint-disable-next-line no-await-in-loop -- one message follows the other
      const { offer, candidate, result } = await this.#next();
      if (offer) dialogue.show(offer);
      // oxlint-disable-next-line no-await-in-loop -- the server waits for it
      else if (candidate) this.#send({ confirm: await dialogue.confirm(candidate) });
      // The same program wrote it.
      else return result as PairingEnding;
    }
  }

  #send(message: object): void {
    this.#socket.write(`${JSON.stringify(message)}\n`);
  }

  async #next(): Promise<Message> {
    const { value, done } = await this.#messages.next();
    if (done) throw new Error("Cannot go on: the server has hung up");
    if (value.error) throw new Error(value.error.message);
    return value;
  }
}

async function* read(socket: ReturnType<typeof connect>): AsyncGenerator<Message> {
  for await (const line of createInterface({ input: socket })) yield JSON.parse(line);
}
