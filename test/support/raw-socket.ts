import { randomBytes } from "node:crypto";
import { connect, type Socket } from "node:net";

/** Opcodes of RFC 6455. */
export const opcodes = { text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

interface RawFrame {
  readonly opcode: number;
  readonly payload: Buffer;
}

interface RawOptions {
  readonly path?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** The address to come from; every 127.x.y.z is one of this machine's (Linux). */
  readonly localAddress?: string;
  /** Whether pings are answered. */
  readonly pongs?: boolean;
  /** Takes each frame in the place of `received`, which would keep a whole flood in memory. */
  readonly receive?: (frame: RawFrame) => void;
}

/**
 * A connection of plain bytes that asks for an upgrade and shows whatever comes back: refusals,
 * control frames, close codes. It can be as impolite as no library lets one be.
 */
export class RawSocket implements Disposable {
  readonly received: RawFrame[] = [];
  /** Resolves when the connection has ended, whoever ended it. */
  readonly ended: Promise<void>;
  readonly #socket: Socket;
  readonly #pongs: boolean;
  readonly #receive: (frame: RawFrame) => void;
  #head = "";
  #unread: Buffer = Buffer.alloc(0);
  #wake = Promise.withResolvers<void>();

  private constructor(socket: Socket, { pongs = true, receive }: RawOptions) {
    this.#socket = socket;
    this.#pongs = pongs;
    this.#receive = receive ?? ((frame) => this.received.push(frame));
    this.ended = new Promise((resolve) => socket.once("close", () => resolve()));
    void this.ended.then(() => this.#wake.resolve());
    // How a connection fails is of no interest here: it has ended.
    socket.on("error", () => socket.destroy());
    socket.on("data", (bytes: Buffer) => this.#take(bytes));
  }

  /** Asks for an upgrade and waits for the answer, whatever it is. */
  static async open(base: URL, options: RawOptions = {}): Promise<RawSocket> {
    const { localAddress } = options;
    const port = Number(base.port);
    const socket = connect({ host: base.hostname, port, ...(localAddress && { localAddress }) });
    const raw = new RawSocket(socket, options);
    const headers = {
      Host: base.host,
      Connection: "Upgrade",
      Upgrade: "websocket",
      "Sec-WebSocket-Version": "13",
      "Sec-WebSocket-Key": randomBytes(16).toString("base64"),
      ...options.headers,
    };
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
    const head = [`GET ${options.path ?? "/ws"} HTTP/1.1`, ...lines, "", ""].join("\r\n");
    socket.write(head, "latin1");
    await raw.until(() => raw.#head !== "");
    return raw;
  }

  /** The status of the answer to the upgrade. */
  get status(): number {
    return Number(/^HTTP\/1\.1 (\d{3})/.exec(this.#head)?.[1]);
  }

  /** The value of a header of the answer to the upgrade. */
  header(name: string): string | undefined {
    return new RegExp(`^${name}: (.*)$`, "im").exec(this.#head)?.[1]?.trim();
  }

  /** The body of an answer that refuses the upgrade. */
  async body(): Promise<string> {
    const length = Number(this.header("content-length"));
    await this.until(() => this.#unread.length >= length);
    return this.#unread.subarray(0, length).toString();
  }

  /** Sends one frame of less than 64 KiB, masked as clients must. */
  send(opcode: number, payload: string | Buffer = ""): void {
    const bytes = Buffer.from(payload);
    const { length } = bytes;
    const size = length < 126 ? [length] : [126, length >> 8, length & 0xff];
    const [first = 0, ...rest] = size;
    const mask = randomBytes(4);
    const masked = bytes.map((byte, at) => byte ^ (mask[at % 4] ?? 0));
    this.#socket.write(Buffer.from([0x80 | opcode, 0x80 | first, ...rest, ...mask, ...masked]));
  }

  /** Takes nothing more from the network: what the server sends has to wait. */
  pause(): void {
    this.#socket.pause();
  }

  /** Reads again. */
  resume(): void {
    this.#socket.resume();
  }

  /** How many frames of a kind have come. */
  count(opcode: number): number {
    return this.received.filter((frame) => frame.opcode === opcode).length;
  }

  /** The code of the close frame, once the connection has ended; undefined if none came. */
  async closeCode(): Promise<number | undefined> {
    await this.ended;
    const frame = this.received.find(({ opcode }) => opcode === opcodes.close);
    return frame && frame.payload.length >= 2 ? frame.payload.readUInt16BE(0) : undefined;
  }

  /** Waits until something is the case, looking after everything that comes in. */
  async until(isSo: () => boolean): Promise<void> {
    while (!isSo()) {
      if (this.#socket.destroyed) throw new Error("The connection has ended");
      await this.#wake.promise;
    }
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #take(bytes: Buffer): void {
    this.#unread = Buffer.concat([this.#unread, bytes]);
    if (this.#head === "") this.#takeHead();
    if (this.status === 101) while (this.#takeFrame());
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }

  #takeHead(): void {
    const end = this.#unread.indexOf("\r\n\r\n");
    if (end === -1) return;
    this.#head = this.#unread.subarray(0, end).toString("latin1");
    this.#unread = this.#unread.subarray(end + 4);
  }

  /** Takes one whole frame of what has come, if there is one. Servers neither mask nor split. */
  #takeFrame(): boolean {
    const [first = 0, short = 0] = this.#unread;
    const start = { 126: 4, 127: 10 }[short] ?? 2;
    if (this.#unread.length < start) return false;
    const length = start === 2 ? short : Number(`0x${this.#unread.toString("hex", 2, start)}`);
    if (this.#unread.length < start + length) return false;
    const frame = { opcode: first & 0x0f, payload: this.#unread.subarray(start, start + length) };
    this.#unread = this.#unread.subarray(start + length);
    this.#receive(frame);
    if (frame.opcode === opcodes.ping && this.#pongs) this.send(opcodes.pong, frame.payload);
    if (frame.opcode === opcodes.close) this.#socket.end();
    return true;
  }
}
