import { mkdirSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Client } from "../support/client.ts";
import type { Job } from "./load.ts";
import { Program } from "./program.ts";

type Env = Readonly<Record<string, string | undefined>>;

const here = import.meta.dir;

/** A server under test, with one client that is not measured. */
export interface Server extends AsyncDisposable {
  readonly program: Program;
  readonly url: string;
  readonly dataDir: string;
  /** From the spawn to the moment it listened. */
  readonly startMs: number;
  readonly client: () => Promise<Client>;
  /** Makes a project of a new directory. */
  readonly project: () => Promise<string>;
}

/** Where the bench starts what it measures, and what it measures with. */
export class Lab implements Disposable {
  readonly #command: readonly string[];
  readonly #root = realpathSync(mkdtempSync(join(tmpdir(), "pocket-agent-bench-")));
  /** How long the rows that watch something for a while do so. */
  readonly seconds: number;

  constructor(options: { command: readonly string[]; seconds: number }) {
    this.#command = options.command;
    this.seconds = options.seconds;
    // Hundreds of megabytes would stay behind.
    process.once("SIGINT", () => {
      this[Symbol.dispose]();
      process.exit(130);
    });
  }

  /** A new empty folder. */
  folder(): string {
    return mkdtempSync(join(this.#root, "f-"));
  }

  /** Starts the server on a free port with the feeder for an agent, and no limits in the way. */
  async server(settings: Env = {}, home = this.folder()): Promise<Server> {
    const dataDir = join(home, "data");
    const env = {
      // The feeder, a script, looks for its bun here.
      PATH: [dirname(process.execPath), process.env["PATH"]].join(":"),
      HOME: home,
      PA_SERVER_HOST: "127.0.0.1",
      PA_SERVER_PORT: "0",
      PA_TLS_ENABLED: "false",
      PA_AUTH_MODE: "none",
      PA_INSECURE: "true",
      PA_DATA_DIR: dataDir,
      PA_CLAUDE_BINARY: join(here, "feeder.ts"),
      PA_MAX_CONNECTIONS: "100000",
      PA_CONNECTION_RATE: "1000000",
      PA_LIMITS_MESSAGE_RATE: "1000000",
      PA_LIMITS_EXECUTE_RATE: "1000000",
      ...settings,
    };
    const begin = performance.now();
    const program = new Program(this.#command, env);
    await using starting = new AsyncDisposableStack();
    starting.use(program);
    const url = String((await program.next("url"))["url"]);
    const startMs = performance.now() - begin;
    const running = starting.move();
    const client = async () => running.use(await Client.connect(new URL(url)));
    let unmeasured: Client | undefined;
    return {
      program,
      url,
      dataDir,
      startMs,
      client,
      async project() {
        unmeasured ??= await client();
        const path = join(home, "work", crypto.randomUUID());
        mkdirSync(path, { recursive: true });
        return await unmeasured.create(path);
      },
      [Symbol.asyncDispose]: () => running.disposeAsync(),
    };
  }

  /** Starts one of the scripts beside this file that show what is the least. */
  async floor(name: "pipeline" | "answer" | "hello", ...args: readonly string[]) {
    const program = new Program(
      [process.execPath, join(here, `floor-${name}.ts`), ...args],
      process.env,
    );
    const url = String((await program.next("url"))["url"]);
    return { program, url, [Symbol.asyncDispose]: () => program[Symbol.asyncDispose]() };
  }

  /** The floor that the agent's lines are compared with. */
  pipeline() {
    return this.floor("pipeline", join(here, "feeder.ts"), join(this.folder(), "log.jsonl"));
  }

  /** Starts clients. */
  load(job: Job): Program {
    return new Program([process.execPath, join(here, "load.ts"), JSON.stringify(job)], process.env);
  }

  /** Sees a job of clients through, and gives the numbers that they found. */
  async run(job: Job): Promise<Record<string, number>> {
    await using load = this.load(job);
    return numbers(await load.next("done"));
  }

  [Symbol.dispose](): void {
    rmSync(this.#root, { recursive: true, force: true });
  }
}

/** The fields of a line that are numbers. */
export function numbers(line: Readonly<Record<string, unknown>>): Record<string, number> {
  const entries = Object.entries(line);
  return Object.fromEntries(
    entries.flatMap(([name, value]) => (typeof value === "number" ? [[name, value]] : [])),
  );
}
