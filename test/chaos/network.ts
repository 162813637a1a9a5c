import { connect, createServer, type Server, type Socket } from "node:net";
import { Client } from "../support/client.ts";
import type { Random } from "./random.ts";
import type { Chaos } from "./world.ts";

/** Clients work over a network that fails; then the server is told to stop in the middle. */
export async function badNetwork(chaos: Chaos, seconds: number): Promise<void> {
  await using network = await FaultyNetwork.listen(chaos.random);
  const host = `127.0.0.1:${network.port}`;
  const server = await chaos.start({ PA_SERVER_ALLOWED_HOSTS: host, PA_TIMEOUTS_SHUTDOWN: "1s" });
  network.target = Number(server.url.port);
  await chaos.visits(new URL(`http://${host}`), async () => {
    await Bun.sleep(seconds * 1000);
    await using client = await Client.connect(server.url);
    const { data } = await client.expect("project_list_response", "project_list");
    chaos.stoppedRuns += data.projects.filter(({ state }) => state === "EXECUTING").length;
    await chaos.stop(server);
  });
  for (const [what, count] of Object.entries(network.faults))
    chaos.faults[`network: ${what}`] = count;
}

/** A network between clients and a server that does what bad ones do. */
class FaultyNetwork implements AsyncDisposable {
  /** What it did so far. */
  readonly faults = { slices: 0, stalls: 0, resets: 0, "half open": 0 };
  /** The port that clients connect to. */
  readonly port: number;
  /** The port of the server. */
  target = 0;
  readonly #random: Random;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server, random: Random) {
    this.#server = server;
    this.#random = random;
    const address = server.address();
    this.port = typeof address === "object" && address ? address.port : 0;
    server.on("connection", (client) => this.#between(client));
  }

  static async listen(random: Random): Promise<FaultyNetwork> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return new FaultyNetwork(server, random);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #between(client: Socket): void {
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
      void this.#carry(from, to);
    }
  }

  async #carry(from: Socket, to: Socket): Promise<void> {
    try {
      for await (const chunk of from) {
        const what = this.#random.next();
        if (what < 0.002) {
          this.faults.resets += 1;
          from.resetAndDestroy();
          to.resetAndDestroy();
          return;
        }
        // Everything is swallowed from now on, and nobody is told.
        if (what < 0.003) {
          this.faults["half open"] += 1;
          for await (const _ of from);
          return;
        }
        if (what < 0.02) {
          this.faults.stalls += 1;
          await Bun.sleep(this.#random.between(20, 400));
        }
        await (what < 0.1 ? this.#slice(chunk, to) : write(to, chunk));
      }
      to.end();
    } catch {
      // One of the two is gone, and so is the other.
      to.destroy();
    }
  }

  /** In pieces of one to seven bytes, as far as that takes no time. */
  async #slice(chunk: Buffer, to: Socket): Promise<void> {
    this.faults.slices += 1;
    let at = 0;
    for (let pieces = 0; at < chunk.length && pieces < 50; pieces += 1) {
      const end = at + this.#random.between(1, 7);
      await write(to, chunk.subarray(at, end));
      at = end;
    }
    if (at < chunk.length) await write(to, chunk.subarray(at));
  }
}

/** Respects whoever reads slowly, as a network does. */
async function write(to: Socket, bytes: Buffer): Promise<void> {
  if (to.destroyed) throw new Error("gone");
  if (to.write(bytes)) return;
  await new Promise<void>((resolve) => {
    to.once("drain", resolve);
    to.once("close", resolve);
  });
}
