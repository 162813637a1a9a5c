import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { scratch } from "./support/app.ts";
import { Client } from "./support/client.ts";
import { Continuity } from "./support/continuity.ts";
import { opcodes, RawSocket } from "./support/raw-socket.ts";
import { ServerProcess } from "./support/server-process.ts";

setDefaultTimeout(240_000);

const mebibyte = 1_048_576;

test("a subscriber that reads nothing during 100 MB costs the others nothing and the server no memory", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const path = join(home, "work");
  await mkdir(path);
  const server = stack.use(await ServerProcess.start({ home }));
  const owner = stack.use(await Client.connect(server.url));
  const project_id = await owner.create(path);
  const fast = stack.use(await Subscriber.join(server.url, project_id));

  // What a flood costs anyhow comes first, so that only the slow subscriber makes a difference.
  await fast.run("flood:12000:2000");
  const { peak: before } = await server.memory();

  const slow = stack.use(await Subscriber.join(server.url, project_id));
  slow.socket.pause();
  await fast.run("flood:40000:2000");
  // On a busy machine this one, too, may fall behind for a while; it must not miss anything.
  expect(fast.seen).toMatchObject({ faults: [], joins: 1 });
  expect(slow.seen.seq).toBeLessThan(fast.seen.seq);
  expect((await server.memory()).peak - before).toBeLessThan(64 * mebibyte);

  slow.socket.resume();
  await slow.until(() => slow.seen.seq === fast.seen.seq);
  expect(slow.seen).toMatchObject({ faults: [], seq: fast.seen.seq, joins: 1 });
  await fast.run("say:and live again");
  await slow.until(() => slow.seen.seq === fast.seen.seq);
  expect(slow.seen.faults).toEqual([]);
  expect(slow.seen.caughtUp).toBeGreaterThan(1);
  expect(slow.seen.live).toBeGreaterThan(0);
  expect((await server.memory()).peak - before).toBeLessThan(64 * mebibyte);
});

/** A client that checks what it receives and keeps nothing of it. */
class Subscriber implements Disposable {
  readonly seen: Continuity;
  readonly socket: RawSocket;
  readonly #project: string;

  private constructor(project: string, seen: Continuity, socket: RawSocket) {
    this.#project = project;
    this.seen = seen;
    this.socket = socket;
  }

  static async join(url: URL, project_id: string): Promise<Subscriber> {
    const seen = new Continuity(project_id);
    const socket = await RawSocket.open(url, {
      receive: ({ opcode, payload }) => {
        if (opcode === opcodes.text) seen.receive(payload.toString());
      },
    });
    const subscriber = new Subscriber(project_id, seen, socket);
    subscriber.#send("project_join");
    await subscriber.until(() => seen.caughtUp === 1);
    return subscriber;
  }

  /** Sends a prompt and waits for the end of its run. */
  async run(prompt: string): Promise<void> {
    let states = 0;
    const ended = new Promise<void>((resolve) => {
      // One state tells of the beginning, one is the reply, and one tells of the end.
      this.seen.onFrame = (type) => {
        if (type === "project_state") states += 1;
        if (states === 3) resolve();
      };
    });
    this.#send("execute", { prompt });
    await ended;
  }

  /** Waits until something is the case, looking after everything that comes in. */
  until(isSo: () => boolean): Promise<void> {
    return this.socket.until(isSo);
  }

  [Symbol.dispose](): void {
    this.socket[Symbol.dispose]();
  }

  #send(type: string, data?: object): void {
    this.socket.send(opcodes.text, JSON.stringify({ type, project_id: this.#project, data }));
  }
}
