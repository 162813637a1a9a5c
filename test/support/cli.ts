import { join } from "node:path";

export const main = join(import.meta.dir, "..", "..", "src", "main.ts");

/** The environment of somebody at that home, whose server's data is in it. */
export function environmentOf(home: string, env: Readonly<Record<string, string>> = {}) {
  return { PATH: process.env["PATH"], HOME: home, PA_DATA_DIR: join(home, "data"), ...env };
}

/** Starts a command, with pipes on all three sides. */
export function spawnCommand(
  argv: readonly string[],
  { home, env = {} }: { home: string; env?: Readonly<Record<string, string>> },
) {
  return Bun.spawn([process.execPath, main, ...argv], {
    cwd: home,
    env: environmentOf(home, env),
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
  });
}

/** Runs a command to its end. */
export async function runCommand(
  argv: readonly string[],
  at: { home: string; env?: Readonly<Record<string, string>>; input?: string },
) {
  const child = spawnCommand(argv, at);
  void child.stdin.write(at.input ?? "");
  await child.stdin.end();
  const [code, out, err] = await Promise.all([
    child.exited,
    child.stdout.text(),
    child.stderr.text(),
  ]);
  return { code, out, err };
}

/** Reads a stream as it comes. */
export class Reader {
  text = "";
  readonly #ended: Promise<void>;
  #wake = Promise.withResolvers<void>();
  #over = false;

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#ended = this.#read(stream);
  }

  /** Waits until what came so far contains this. */
  async until(words: string): Promise<void> {
    while (!this.text.includes(words)) {
      if (this.#over) throw new Error(`"${words}" never came, but: ${this.text}`);
      await this.#wake.promise;
    }
  }

  /** All of it, once it has ended. */
  async all(): Promise<string> {
    await this.#ended;
    return this.text;
  }

  async #read(stream: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      this.text += decoder.decode(chunk, { stream: true });
      this.#stir();
    }
    this.#over = true;
    this.#stir();
  }

  #stir(): void {
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
  }
}
