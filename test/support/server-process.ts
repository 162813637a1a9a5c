import { join } from "node:path";
import { open } from "./app.ts";

const main = join(import.meta.dir, "..", "..", "src", "main.ts");
const fakeClaude = join(import.meta.dir, "fake-claude.ts");
const listening = /"url":"(http[^"]+)".*"pid":(\d+)/;

interface ProcessOptions {
  /** HOME of the server and of its agents; the data is in `data` there. */
  readonly home: string;
  readonly settings?: Readonly<Record<string, string>>;
  /** A command to run the server by, such as a tracer. */
  readonly by?: readonly string[];
}

/** Starts the server as a process of its own, with the fake claude. */
export function spawnServer({ home, settings = {}, by = [] }: ProcessOptions) {
  return Bun.spawn([...by, process.execPath, main], {
    cwd: home,
    env: {
      PATH: process.env["PATH"],
      HOME: home,
      FAKE_CLAUDE_LOG: join(home, "agent.jsonl"),
      ...open,
      PA_SERVER_PORT: "0",
      PA_DATA_DIR: join(home, "data"),
      PA_CLAUDE_BINARY: fakeClaude,
      PA_CONNECTION_RATE: "1000",
      ...settings,
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
}

/** A server in a process of its own that listens; it is gone at scope end. */
export class ServerProcess implements AsyncDisposable {
  readonly url: URL;
  readonly pid: number;
  readonly #child: ReturnType<typeof spawnServer>;
  readonly #log: readonly string[];

  private constructor(
    child: ReturnType<typeof spawnServer>,
    { url, pid, log }: { url: URL; pid: number; log: readonly string[] },
  ) {
    this.#child = child;
    this.#log = log;
    this.url = url;
    this.pid = pid;
  }

  /** What it has logged so far: one JSON object per line. */
  get log(): string {
    return this.#log.join("");
  }

  /** Starts it and waits until it listens. */
  static async start(options: ProcessOptions): Promise<ServerProcess> {
    const child = spawnServer(options);
    const server = Promise.withResolvers<ServerProcess>();
    const log: string[] = [];
    void ServerProcess.#watch(child, log, (url, pid) =>
      server.resolve(new ServerProcess(child, { url: new URL(url), pid, log })),
    ).then((errors) => server.reject(new Error(`The server ended: ${log.join("")}${errors}`)));
    return await server.promise;
  }

  /** Bytes of memory that it has now, and the most that it ever had. */
  async memory(): Promise<{ now: number; peak: number }> {
    const status = await Bun.file(`/proc/${this.pid}/status`).text();
    const kilobytes = (name: string) =>
      Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(status)?.[1]);
    return { now: kilobytes("VmRSS") * 1024, peak: kilobytes("VmHWM") * 1024 };
  }

  /** Its exit code, once it has ended. */
  get exited(): Promise<number> {
    return this.#child.exited;
  }

  /** Sends it a signal, unless it has ended. */
  signal(name: NodeJS.Signals): void {
    const { exitCode, signalCode } = this.#child;
    if (exitCode === null && signalCode === null) process.kill(this.pid, name);
  }

  /** Ends it in order, and gives its exit code. */
  async stop(): Promise<number> {
    this.signal("SIGTERM");
    return await this.#child.exited;
  }

  /** Ends it at once, without a chance to put anything in order. */
  async crash(): Promise<void> {
    this.signal("SIGKILL");
    await this.#child.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // A test that failed may leave a run that nothing else would end.
    const force = setTimeout(() => this.signal("SIGTERM"), 2_000);
    await this.stop();
    clearTimeout(force);
  }

  /** Reads the log to its end, so that the server never waits for a reader. */
  static async #watch(
    child: ReturnType<typeof spawnServer>,
    log: string[],
    ready: (url: string, pid: number) => void,
  ): Promise<string> {
    const errors = new Response(child.stderr).text();
    const decoder = new TextDecoder();
    let found = false;
    for await (const chunk of child.stdout) {
      log.push(decoder.decode(chunk, { stream: true }));
      if (found) continue;
      const [, url, pid] = listening.exec(log.join("")) ?? [];
      found = url !== undefined;
      if (url) ready(url, Number(pid));
    }
    return await errors;
  }
}
