import { controlPath } from "../adapters/control-path.ts";
import { idleRunner } from "../adapters/idle-runner.ts";
import { Metrics } from "../adapters/metrics.ts";
import { isAgents } from "../adapters/peer.ts";
import { type Arguments, splitArguments } from "../arguments.ts";
import { loadConfig } from "../config.ts";
import type { Config } from "../contract/options.ts";
import type { Telemetry } from "../core/ports.ts";
import { operate, type Operation, type Results } from "../edge/operations.ts";
import { openData } from "../data.ts";
import { ControlClient } from "./control-client.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/** One word of the command line, and what it does. */
export interface Command {
  /** What it is for, in a line. */
  readonly about: string;
  /** Ways to call it. */
  readonly usage: readonly string[];
  readonly details: readonly string[];
  /** Gives the exit code of the process. */
  readonly run: (argv: readonly string[], env: Environment) => Promise<number>;
}

/** Somebody called a command in a way that it does not have; exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** What every command for this machine's owner is called with. */
export interface Call extends Arguments {
  readonly config: Config;
  readonly env: Environment;
  /** Whether a program reads the output. */
  readonly json: boolean;
}

/** Reads a command's arguments. Refuses agents, which must not decide who may come in. */
export function call(
  argv: readonly string[],
  env: Environment,
  own: Readonly<Record<string, "switch" | "value">> = {},
): Call {
  if (isAgents(process.pid))
    throw new Error("Cannot do that for an agent, or for anything that an agent has started");
  const split = splitArguments(argv, { ...own, json: "switch" });
  const config = loadConfig(split.settings, env, { serving: false });
  return { ...split, config, env, json: split.flags.has("json") };
}

/** The running server; undefined when there is none. */
export async function server({ config, env }: Call): Promise<ControlClient | undefined> {
  return await ControlClient.connect(controlPath(config.dataDir, env));
}

/** Has the running server do something or, when there is none, does it to its data directory. */
export async function administer<O extends Operation>(
  operation: O,
  input: object,
  from: Call,
): Promise<Results[O]> {
  const progress = from.json ? () => undefined : showProgress;
  using running = await server(from);
  if (running) return await running.ask(operation, input, progress);
  process.umask(0o077);
  const { config, env } = from;
  const runner = idleRunner(env);
  const around = { env, umask: 0o022, metrics: new Metrics(), log, configPaths: [], runner };
  await using data = await openData(config, around, { publish: () => undefined });
  return await operate(operation, input, { ...data, progress });
}

function showProgress(bytes: number, of: number): void {
  if (process.stderr.isTTY)
    console.error(`${(bytes / 1e6).toFixed(0)} of ${(of / 1e6).toFixed(0)} MB`);
}

/** Prints a result: for programs as it is, for people as `text` says. */
export function print({ json }: Call, result: object, text: () => string): void {
  console.log(json ? JSON.stringify(result, null, 2) : text());
}

/** What a person at a terminal should know; the rest is in the audit log. */
const log: Telemetry["log"] = (level, text, fields = {}) => {
  if (level === "warn" || level === "error") console.error(`${text} ${JSON.stringify(fields)}`);
};
