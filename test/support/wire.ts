import { connect, createServer, type Server, type Socket } from "node:net";

/** The way between a browser and a server, which can be cut and mended. */
export class Wire implements AsyncDisposable {
  /** The server's port; clients connect to `port`. */
  target = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #whole = true;

  private constructor(server: Server) {
    this.#server = server;
    server.on("connection", (client) => this.#between(client));
  }

  static async lay(): Promise<Wire> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return new Wire(server);
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === "object" && address ? address.port : 0;
  }

  /** Ends every connection in the middle of whatever it carried, and takes no new ones. */
  cut(): void {
    this.#whole = false;
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  mend(): void {
    this.#whole = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #between(client: Socket): void {
    if (!this.#whole) return void client.resetAndDestroy();
    const server = connect(this.target, "127.0.0.1");
    for (const [from, to] of [
      [client, server],
      [server, client],
    ] as const) {
      this.#sockets.add(from);
      from.on("error", () => to.destroy());
      from.on("close", () => {
        to.destroy();
        this.#sockets.delete(from);
      });
      from.pipe(to);
    }
  }
}
