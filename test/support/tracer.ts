import { readdirSync } from "node:fs";

/**
 * strace, attached to a process that runs, until disposed. It follows neither children nor threads
 * that are made later. Only root may, for the server lets nobody else look into it.
 */
export class Tracer implements AsyncDisposable {
  readonly #child: Bun.Subprocess<"ignore", "ignore", "pipe">;

  private constructor(child: Bun.Subprocess<"ignore", "ignore", "pipe">) {
    this.#child = child;
  }

  static async attach(pid: number, options: readonly string[]): Promise<Tracer> {
    const threads = readdirSync(`/proc/${pid}/task`);
    const ids = threads.flatMap((id) => ["-p", id]);
    const child = Bun.spawn(["strace", ...options, ...ids], {
      stdin: "ignore",
      stdout: "ignore",
      stderr: "pipe",
    });
    let said = "";
    const decoder = new TextDecoder();
    const reader = child.stderr.getReader();
    while (said.split("attached").length <= threads.length) {
      const { done, value } = await reader.read();
      if (done) throw new Error(`Cannot trace the server: ${said}`);
      said += decoder.decode(value, { stream: true });
    }
    // What it says from now on, nobody waits for; but a full pipe would stop it.
    void (async () => {
      while (!(await reader.read()).done);
    })();
    return new Tracer(child);
  }

  /** Lets the process go on without it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGINT");
    await this.#child.exited;
  }
}
