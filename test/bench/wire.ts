import type { Socket } from "bun";
import { randomBytes } from "node:crypto";

const opcodes = { text: 1, ping: 9, pong: 10 } as const;
const nothing = Buffer.alloc(0);
const { promise, reject } = Promise.withResolvers<never>();

/** Rejects when a server closes any of the connections, after which nothing is worth measuring. */
export const disconnected = promise;
// Whoever measures waits for it in time, or has what was wanted already.
promise.catch(() => undefined);

/**
 * A WebSocket client that costs next to nothing: it finds the frames and looks at none. A client
 * of Bun's own would take more processor time than the server that it is to measure.
 */
export class Wire {
  /** Takes each text frame; the buffer is valid during the call only. */
  readonly #receive: (payload: Buffer) => void;
  #socket: Socket | undefined;
  #upgraded = Promise.withResolvers<void>();
  #open = false;
  /** What has come of a frame that is not whole yet. */
  #parts: Buffer[] = [];
  #size = 0;
  #wanted = 0;

  private constructor(receive: (payload: Buffer) => void) {
    this.#receive = receive;
  }

  static async connect(url: URL, receive: (payload: Buffer) => void): Promise<Wire> {
    const wire = new Wire(receive);
    const secure = url.protocol === "https:";
    const { promise: agreed, resolve } = Promise.withResolvers<void>();
    wire.#socket = await Bun.connect({
      hostname: url.hostname,
      port: Number(url.port),
      // The server has made its certificate itself.
      ...(secure && { tls: { rejectUnauthorized: false } }),
      socket: {
        handshake: () => resolve(),
        data: (_, chunk) => wire.#take(chunk),
        close: () => wire.#closed(),
      },
    });
    if (secure) await agreed;
    const lines = [
      "GET /ws HTTP/1.1",
      `Host: ${url.host}`,
      "Connection: Upgrade",
      "Upgrade: websocket",
      "Sec-WebSocket-Version: 13",
      `Sec-WebSocket-Key: ${randomBytes(16).toString("base64")}`,
    ];
    wire.#socket.write(`${lines.join("\r\n")}\r\n\r\n`);
    await wire.#upgraded.promise;
    return wire;
  }

  send(message: object): void {
    this.#send(opcodes.text, Buffer.from(JSON.stringify(message)));
  }

  /** Reads nothing more from the network. */
  pause(): void {
    this.#socket?.pause();
  }

  resume(): void {
    this.#socket?.resume();
  }

  #closed(): void {
    const error = new Error("Cannot measure: the connection was closed");
    this.#upgraded.reject(error);
    reject(error);
  }

  /** One masked frame; a mask of zeros is a mask. */
  #send(opcode: number, payload: Buffer): void {
    const size = payload.length;
    const length = size < 126 ? [size] : [126, size >> 8, size & 0xff];
    const [short = 0, ...rest] = length;
    const header = Buffer.from([0x80 | opcode, 0x80 | short, ...rest, 0, 0, 0, 0]);
    this.#socket?.write(Buffer.concat([header, payload]));
  }

  #take(chunk: Buffer): void {
    this.#parts.push(chunk);
    this.#size += chunk.length;
    if (this.#size < this.#wanted) return;
    const [first = nothing] = this.#parts;
    const bytes = this.#parts.length === 1 ? first : Buffer.concat(this.#parts);
    const used = this.#open ? this.#frames(bytes, 0) : this.#upgrade(bytes);
    // The runtime uses a chunk's memory again, so that what is kept of it must be copied.
    const rest = Buffer.from(bytes.subarray(used));
    this.#parts = rest.length > 0 ? [rest] : [];
    this.#size = rest.length;
  }

  #upgrade(bytes: Buffer): number {
    const end = bytes.indexOf("\r\n\r\n");
    if (end === -1) return 0;
    const status = bytes.toString("latin1", 0, 12);
    if (status !== "HTTP/1.1 101") {
      this.#upgraded.reject(new Error(`Cannot measure: the server answered "${status}"`));
      return bytes.length;
    }
    this.#open = true;
    this.#upgraded.resolve();
    return this.#frames(bytes, end + 4);
  }

  /** Visits all whole frames; servers neither mask nor split them. */
  #frames(bytes: Buffer, from: number): number {
    let at = from;
    this.#wanted = 0;
    while (bytes.length - at >= 2) {
      const short = bytes.readUInt8(at + 1);
      const start = at + (short === 127 ? 10 : short === 126 ? 4 : 2);
      if (bytes.length < start) break;
      const length =
        short === 127
          ? Number(bytes.readBigUInt64BE(at + 2))
          : short === 126
            ? bytes.readUInt16BE(at + 2)
            : short;
      if (bytes.length < start + length) {
        this.#wanted = start + length - at;
        break;
      }
      const opcode = bytes.readUInt8(at) & 0x0f;
      const payload = bytes.subarray(start, start + length);
      if (opcode === opcodes.text) this.#receive(payload);
      if (opcode === opcodes.ping) this.#send(opcodes.pong, payload);
      at = start + length;
    }
    return at;
  }
}
