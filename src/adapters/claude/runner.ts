import { statSync } from "node:fs";
import { Fault } from "../../contract/errors.ts";
import type { AgentRequest, AgentRunner, Telemetry } from "../../core/ports.ts";
import { agentArguments } from "./arguments.ts";
import { Binary } from "./binary.ts";
import { cleanEnvironment, runEnvironment, type EnvironmentSource } from "./environment.ts";
import { Inquiries } from "./inquiry.ts";
import { ladderTiming, type LadderTiming } from "./ladder.ts";
import { ClaudeProcess, type Child } from "./process.ts";
import { processTable } from "./processes.ts";
import { RunRecords, type Leftover, type Started } from "./run-records.ts";
import { spawnFault } from "./spawn-fault.ts";
import { sweep } from "./sweep.ts";
import { TrustRecord } from "./trust.ts";

/** How the CLI is run on this machine. */
export interface ClaudeOptions extends EnvironmentSource {
  /** An absolute path, or a name looked up in `PATH`. */
  readonly binary: string;
  /** Where it is noted what runs. */
  readonly recordsDir: string;
  /** The server's own directories, closed to the agent's file tools. */
  readonly serverPaths: readonly string[];
  /** Longest line of the agent that is passed on. */
  readonly lineBytes: number;
  /** For the files that the agent makes; the server's own umask is narrower. */
  readonly userUmask: number;
  readonly ladder?: Partial<LadderTiming>;
  readonly telemetry: Telemetry;
}

/** Runs the real `claude` CLI. */
export function claudeRunner(options: ClaudeOptions): ClaudeRunner {
  return new ClaudeRunner(options);
}

class ClaudeRunner implements AgentRunner, AsyncDisposable {
  readonly #options: ClaudeOptions;
  readonly #environment: Readonly<Record<string, string>>;
  readonly #inquiries: Inquiries;
  readonly #binary: Binary;
  readonly #trust: TrustRecord;
  readonly #records: RunRecords;
  /** Sweeps of what an earlier server left, by project; null where that is unknown. */
  readonly #sweeps: readonly { readonly projectId: string | null; readonly done: Promise<void> }[];

  constructor(options: ClaudeOptions) {
    this.#options = options;
    const { telemetry } = options;
    this.#environment = cleanEnvironment(options);
    this.#inquiries = new Inquiries(this.#environment);
    this.#binary = new Binary({
      name: options.binary,
      searchPath: this.#environment["PATH"] ?? "",
      inquiries: this.#inquiries,
      telemetry,
    });
    this.#trust = new TrustRecord(this.#environment);
    this.#records = new RunRecords(options.recordsDir, telemetry);
    this.#sweeps = this.#records
      .leftovers()
      .map((leftover) => ({ projectId: leftover.projectId, done: this.#sweep(leftover) }));
    const obstacle = this.obstacle();
    if (obstacle) telemetry.log("warn", obstacle.message);
  }

  obstacle(): Fault | undefined {
    const found = this.#binary.locate(null);
    return found instanceof Fault ? found : undefined;
  }

  trusts(path: string): boolean {
    return this.#trust.trusts(path);
  }

  start(request: AgentRequest): ClaudeProcess {
    // Bun reports a missing directory as a missing program.
    if (!isDirectory(request.cwd)) {
      throw new Fault("INVALID_PATH", "Cannot start claude: the directory is not there");
    }
    const program = this.#binary.locate(request.cwd);
    if (program instanceof Fault) throw program;
    const marker = crypto.randomUUID();
    const record = this.#record(request.projectId, marker);
    const { lineBytes, telemetry, ladder } = this.#options;
    const timing = { ...ladderTiming, ...ladder };
    const child = this.#spawn(
      [program.path, ...agentArguments(request, this.#options.serverPaths)],
      { request, record, marker },
    );
    return new ClaudeProcess(child, {
      marker,
      record,
      lineBytes,
      timing,
      table: processTable,
      telemetry,
    });
  }

  async swept(projectId: string): Promise<void> {
    const concerned = this.#sweeps.filter(
      (sweeping) => (sweeping.projectId ?? projectId) === projectId,
    );
    await Promise.all(concerned.map(({ done }) => done));
  }

  async health(): ReturnType<AgentRunner["health"]> {
    const found = this.#binary.locate(null);
    if (!(found instanceof Fault)) await this.#binary.version(found);
    // Only now it is known whether the version will do.
    const program = this.#binary.locate(null);
    if (program instanceof Fault) {
      const version = program.details?.["version"];
      return {
        available: false,
        version: typeof version === "string" ? version : null,
        authenticated: null,
        path: found instanceof Fault ? null : found.path,
        problem: program.message,
      };
    }
    const version = await this.#binary.version(program);
    const authenticated = await this.#binary.authenticated(program);
    const { path } = program;
    return {
      available: true,
      version,
      authenticated,
      path,
      problem: problem(version, authenticated),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inquiries[Symbol.asyncDispose]();
    await Promise.all(this.#sweeps.map(({ done }) => done));
  }

  #record(projectId: string, marker: string): Started {
    try {
      return this.#records.begin(projectId, marker);
    } catch (error) {
      throw new Fault("STORAGE_ERROR", "Cannot start claude: the run cannot be recorded", {
        reason: String(error),
      });
    }
  }

  /** All in one synchronous piece: the umask is the process's, so nobody else may run meanwhile. */
  #spawn(
    argv: string[],
    { request, record, marker }: { request: AgentRequest; record: Started; marker: string },
  ): Child {
    const umask = process.umask(this.#options.userUmask);
    try {
      return Bun.spawn(argv, {
        cwd: request.cwd,
        env: runEnvironment(this.#environment, { marker, trusted: request.trusted }),
        stdin: "pipe",
        stdout: "pipe",
        stderr: "pipe",
        // A session of its own, so that Ctrl-C at the server is not Ctrl-C at the agent.
        detached: true,
      });
    } catch (error) {
      record.remove();
      throw spawnFault(error);
    } finally {
      process.umask(umask);
    }
  }

  async #sweep({ marker, known }: Leftover): Promise<void> {
    const { telemetry } = this.#options;
    try {
      const { swept, clean } = await sweep({ marker, known }, processTable);
      if (swept > 0) telemetry.count("processes_swept_total", {}, swept);
      if (clean) this.#records.remove(marker);
      else telemetry.log("error", "Processes of an earlier server cannot be killed", { marker });
    } catch (error) {
      telemetry.log("error", "An earlier run cannot be swept", { marker, error: String(error) });
    }
  }
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function problem(version: string | null, authenticated: boolean | null): string | null {
  if (version === null) return "claude does not state its version";
  return authenticated === false ? "Nobody is logged in to claude: run it once and log in" : null;
}
