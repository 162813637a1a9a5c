import { administer as perform, type Operation, type Results } from "../access/administration.ts";
import { openAccess } from "../access/access.ts";
import { systemClock as clock } from "../adapters/clock.ts";
import { controlPath } from "../adapters/control-path.ts";
import { lockDataDir } from "../adapters/data-lock.ts";
import { isAgents } from "../adapters/peer.ts";
import { type Arguments, loadConfig, splitArguments } from "../config.ts";
import type { Config } from "../contract/options.ts";
import type { Telemetry } from "../core/ports.ts";
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
  using running = await server(from);
  if (running) return await running.ask(operation, input);
  const { config } = from;
  process.umask(0o077);
  using locked = new DisposableStack();
  locked.use(lockDataDir(config.dataDir));
  await using access = await openAccess(config, { clock, log, announce: () => undefined });
  const revoke = async (id: string) => {
    await Promise.all([access.devices.revoke(id), access.tokens.drop(id)]);
    access.audit.record("device_revoked", { revoked: id });
  };
  const parts = { config, clock, access, revoke, connected: () => false };
  return await perform(operation, input, parts);
}

/** Prints a result: for programs as it is, for people as `text` says. */
export function print({ json }: Call, result: object, text: () => string): void {
  console.log(json ? JSON.stringify(result, null, 2) : text());
}

/** What a person at a terminal should know; the rest is in the audit log. */
const log: Telemetry["log"] = (level, text, fields = {}) => {
  if (level === "warn" || level === "error") console.error(`${text} ${JSON.stringify(fields)}`);
};
