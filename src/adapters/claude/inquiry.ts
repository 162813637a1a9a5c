import { Output } from "./output.ts";

const timeoutMs = 10_000;
const maxBytes = 64 * 1024;

/** What a short question to the CLI gave; null when it could not be asked or took too long. */
export type Answer = { readonly code: number; readonly stdout: string } | null;

/** Asks the CLI about itself, in processes that never outlive the asker. */
export class Inquiries implements AsyncDisposable {
  readonly #environment: Readonly<Record<string, string>>;
  readonly #running = new Set<Bun.Subprocess<"ignore", "pipe", "ignore">>();
  #over = false;

  constructor(environment: Readonly<Record<string, string>>) {
    this.#environment = environment;
  }

  /** Started in `/`, where nobody's project settings lie. */
  async ask(argv: readonly string[]): Promise<Answer> {
    if (this.#over) return null;
    let child;
    try {
      child = Bun.spawn([...argv], {
        cwd: "/",
        env: this.#environment,
        stdin: "ignore",
        stdout: "pipe",
        stderr: "ignore",
        timeout: timeoutMs,
        killSignal: "SIGKILL",
      });
    } catch {
      // Not a program after all: no answer is what the asker reports.
      return null;
    }
    this.#running.add(child);
    const output = new Output(child.stdout);
    void child.exited.then(() => output.writerGone());
    const stdout = await readHead(output);
    const code = await child.exited;
    this.#running.delete(child);
    return child.signalCode === null ? { code, stdout } : null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#over = true;
    for (const child of this.#running) child.kill("SIGKILL");
    await Promise.all([...this.#running].map((child) => child.exited));
  }
}

async function readHead(output: Output): Promise<string> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of output) {
    if (bytes < maxBytes) parts.push(chunk);
    bytes += chunk.length;
  }
  return Buffer.concat(parts).toString("utf8");
}
