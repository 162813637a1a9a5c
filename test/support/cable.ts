import { rmSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";

/** A way to a server's local socket that can be cut: a data directory in which there is no more. */
export class Cable implements Disposable {
  readonly dataDir: string;
  /** It breaks the first time that the server says this, which does not come through any more. */
  breaksAt: string | undefined;
  readonly #server: Server;
  readonly #target: string;
  readonly #ends = new Set<Socket>();

  private constructor(dataDir: string, target: string) {
    this.dataDir = dataDir;
    this.#target = target;
    this.#server = createServer((near) => this.#connect(near));
  }

  static async to(target: string, home: string): Promise<Cable> {
    const dataDir = join(home, "cable");
    await mkdir(dataDir, { mode: 0o700, recursive: true });
    const cable = new Cable(dataDir, target);
    await cable.plug();
    return cable;
  }

  /** Ends every connection, and lets no other come. */
  async cut(): Promise<void> {
    const closed = new Promise((resolve) => void this.#server.close(resolve));
    for (const end of this.#ends) end.destroy();
    await closed;
  }

  async plug(): Promise<void> {
    const path = join(this.dataDir, "control.sock");
    rmSync(path, { force: true });
    await new Promise<void>((resolve) => void this.#server.listen(path, resolve));
  }

  [Symbol.dispose](): void {
    for (const end of this.#ends) end.destroy();
    this.#server.close();
  }

  #breaks(chunk: Buffer): boolean {
    if (this.breaksAt === undefined || !chunk.includes(this.breaksAt)) return false;
    this.breaksAt = undefined;
    for (const end of this.#ends) end.destroy();
    return true;
  }

  #connect(near: Socket): void {
    const far = connect(this.#target);
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      this.#ends.add(one);
      one.on("data", (chunk: Buffer) => {
        if (one === far && this.#breaks(chunk)) return;
        if (!other.write(chunk)) one.pause();
      });
      other.on("drain", () => one.resume());
      one.on("error", () => undefined);
      one.on("close", () => {
        this.#ends.delete(one);
        other.destroy();
      });
    }
  }
}
