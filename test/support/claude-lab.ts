import { mkdirSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { ClaudeProcess } from "../../src/adapters/claude/process.ts";
import { processTable } from "../../src/adapters/claude/processes.ts";
import { claudeRunner, type ClaudeOptions } from "../../src/adapters/claude/runner.ts";
import type { AgentLine, AgentRequest, Telemetry } from "../../src/core/ports.ts";

const fakeClaude = join(import.meta.dir, "fake-claude.ts");

/** A folder with a project in it, in which the claude adapter runs the fake CLI. */
export class ClaudeLab implements AsyncDisposable {
  readonly dir = realpathSync(mkdtempSync(join(tmpdir(), "claude-lab-")));
  readonly project = join(this.dir, "project");
  readonly recordsDir = join(this.dir, "records");
  readonly logs: string[] = [];
  swept = 0;
  readonly #processes: ClaudeProcess[] = [];
  readonly #runners: AsyncDisposable[] = [];
  readonly #log = join(this.dir, "fake.log");
  readonly #telemetry: Telemetry = {
    count: (metric, _labels, by = 1) => {
      if (metric === "processes_swept_total") this.swept += by;
    },
    gauge: () => undefined,
    observe: () => undefined,
    log: (_level, text) => void this.logs.push(text),
  };

  constructor() {
    mkdirSync(this.project);
  }

  runner(options: Partial<ClaudeOptions> = {}): ReturnType<typeof claudeRunner> {
    const runner = claudeRunner({
      binary: fakeClaude,
      recordsDir: this.recordsDir,
      serverPaths: [],
      extraEnv: [],
      sshAgent: false,
      lineBytes: 16 * 1024 * 1024,
      userUmask: 0o022,
      telemetry: this.#telemetry,
      ladder: { interruptMs: 300, inputMs: 300, terminateMs: 300 },
      ...options,
      environment: {
        PATH: process.env["PATH"],
        HOME: this.dir,
        FAKE_CLAUDE_LOG: this.#log,
        ...options.environment,
      },
    });
    this.#runners.push(runner);
    return runner;
  }

  /** Starts an agent that does not outlive the lab. */
  start(options: Partial<ClaudeOptions> = {}, request: Partial<AgentRequest> = {}): ClaudeProcess {
    return this.startOn(this.runner(options), request);
  }

  startOn(
    runner: ReturnType<typeof claudeRunner>,
    request: Partial<AgentRequest> = {},
  ): ClaudeProcess {
    const agent = runner.start({
      projectId: "p",
      cwd: this.project,
      trusted: true,
      permissionMode: "default",
      model: null,
      options: {},
      session: { id: crypto.randomUUID(), resume: false, fork: false },
      ...request,
    });
    this.#processes.push(agent);
    return agent;
  }

  /** One that does its work only when it is started as an agent, not when it is asked something. */
  agentScript(body: string): string {
    return this.script(`[ "$1" = -p ] || exit 0\n${body}`);
  }

  /** A program that stands where the CLI would. */
  script(body: string, name = "script"): string {
    const path = join(this.dir, name);
    writeFileSync(path, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
    return path;
  }

  /** The agents that the fake CLI has been started as; not the questions to it. */
  runs(): Record<string, unknown>[] {
    return this.recorded("start").filter((start) => start["marker"] !== null);
  }

  /** What the fake CLI has recorded, of one kind of event. */
  recorded(event: string): Record<string, unknown>[] {
    try {
      const lines = readFileSync(this.#log, "utf8").trimEnd().split("\n");
      const all: Record<string, unknown>[] = lines.map((line) => JSON.parse(line));
      return all.filter((line) => line["event"] === event);
    } catch {
      // Nothing was recorded yet.
      return [];
    }
  }

  /** The files that say what is running. */
  records(): string[] {
    return readdirSync(this.recordsDir);
  }

  /** The marker of the one process that is running. */
  marker(): string {
    return this.records()[0]?.replace(".json", "") ?? "";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#processes.map((agent) => agent.stop(true)));
    await Promise.all(this.#runners.map((runner) => runner[Symbol.asyncDispose]()));
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** The pids that carry a marker. */
export function carriers(marker: string): Promise<readonly number[]> {
  return processTable.carriers(marker);
}

/** Waits until something is the case; the test's own timeout is the limit. */
export async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isSo())) await Bun.sleep(5);
}

/** Reads an agent's lines up to one that `isLast` holds for, or to the end. */
export async function readLines(
  agent: ClaudeProcess,
  isLast: (line: AgentLine) => boolean = () => false,
): Promise<AgentLine[]> {
  const lines: AgentLine[] = [];
  const iterator = agent.lines[Symbol.asyncIterator]();
  for (let next = await iterator.next(); !next.done; next = await iterator.next()) {
    lines.push(...next.value);
    if (next.value.some(isLast)) break;
  }
  return lines;
}

/** Whether a line is the result of a turn. */
export function isResult(line: AgentLine): boolean {
  return line.kind === "event" && line.event.type === "result";
}
