import { type Usage, usageOf } from "./usage.ts";

type Line = Readonly<Record<string, unknown>>;

/** Lines that nobody has asked for are forgotten beyond this many. */
const keptLines = 1_000;
const patienceMs = 60_000;

/** A process of its own that prints JSON, one object a line. */
export class Program implements AsyncDisposable {
  readonly #child: Bun.Subprocess<"pipe", "pipe", "inherit">;
  readonly #lines: Line[] = [];
  readonly #over: Promise<void>;
  #ended = false;
  #wake = Promise.withResolvers<void>();

  constructor(argv: readonly string[], env: Readonly<Record<string, string | undefined>>) {
    this.#child = Bun.spawn([...argv], { env, stdin: "pipe", stdout: "pipe", stderr: "inherit" });
    this.#over = this.#read();
  }

  get pid(): number {
    return this.#child.pid;
  }

  get usage(): Usage {
    return usageOf(this.pid);
  }

  /** Takes the next line that has this field. */
  async next(field: string, value?: unknown): Promise<Line> {
    const deadline = performance.now() + patienceMs;
    for (;;) {
      const at = this.#lines.findIndex(
        (line) => field in line && (value === undefined || line[field] === value),
      );
      const [line] = at === -1 ? [] : this.#lines.splice(at, 1);
      if (line) return line;
      if (this.#ended || performance.now() > deadline)
        throw new Error(`Cannot go on: process ${this.pid} did not print "${field}"`);
      await Promise.race([this.#wake.promise, Bun.sleep(1_000)]);
    }
  }

  /** Sends a JSON line to its stdin. */
  tell(line: Line): void {
    void this.#child.stdin.write(`${JSON.stringify(line)}\n`);
    void this.#child.stdin.flush();
  }

  /** Asks it to end and, if it takes too long, ends it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGTERM");
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), 10_000);
    await this.#child.exited;
    clearTimeout(timer);
    await this.#over;
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for await (const chunk of this.#child.stdout) {
      const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.#lines.push(JSON.parse(line));
      this.#lines.splice(0, this.#lines.length - keptLines);
      this.#wake.resolve();
      this.#wake = Promise.withResolvers();
    }
    this.#ended = true;
    this.#wake.resolve();
  }
}
