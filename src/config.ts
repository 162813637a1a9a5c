import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import * as v from "valibot";
import {
  type Config,
  flagOf,
  type OptionName,
  type OptionRow,
  options,
} from "./contract/options.ts";

type Environment = Readonly<Record<string, string | undefined>>;
interface Candidate {
  readonly source: string;
  readonly value: unknown;
}

// The one cast: `options` is a constant, so its keys are exactly its names.
const names = Object.keys(options) as OptionName[];
const rows: Readonly<Record<OptionName, OptionRow>> = options;

/** Every problem of a configuration, each with where it came from. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";

  constructor(problems: readonly string[]) {
    super(`Cannot load the configuration:\n  ${problems.join("\n  ")}`);
  }
}

/**
 * Reads flags, environment and file, in this precedence, into one Config. Throws one ConfigError
 * that lists every problem with its source.
 */
export function loadConfig(argv: readonly string[], env: Environment): Config {
  const problems: string[] = [];
  const flags = readFlags(argv, problems);
  const file = readFile(flags.get("config") ?? env["PA_CONFIG"], env, problems);
  const known = new Set<string>(names.map((name) => rows[name].file));
  for (const key of file.values.keys())
    if (!known.has(key)) problems.push(`${key} in ${file.path}: unknown setting`);
  const variables = new Set(["PA_CONFIG", ...names.map((name) => rows[name].env)]);
  for (const key of Object.keys(env))
    if (key.startsWith("PA_") && !variables.has(key)) problems.push(`${key}: unknown setting`);

  const entries = names.map((name) => {
    const row = rows[name];
    const candidates: Candidate[] = [
      { source: `--${flagOf(name)}`, value: flags.get(flagOf(name)) },
      { source: row.env, value: env[row.env] },
      { source: `${row.file} in ${file.path}`, value: file.values.get(row.file) },
    ];
    const found = candidates.find(({ value }) => value !== undefined);
    const { source, value } = found ?? { source: "default", value: row.default };
    const result = v.safeParse(row.type, value);
    if (!result.success)
      problems.push(`${source}: ${result.issues[0].message}, not ${show(value)}`);
    return [name, result.output];
  });
  // Valid as soon as there are no problems, which is when it is looked at.
  const config: Config = Object.fromEntries(entries);
  if (problems.length === 0) problems.push(...refusals(config));
  if (problems.length > 0) throw new ConfigError(problems);
  return { ...config, dataDir: platformPath(config.dataDir, env) };
}

/** The text of `--help`. */
export function help(): string {
  const flags = names.map((name) => {
    const { env, about, default: value } = rows[name];
    const unset = value === null ? "" : `, default ${String(value)}`;
    return `  --${flagOf(name)}\n      ${about} [${env}${unset}]`;
  });
  return [
    "Usage: pocket-agent-server [serve] [--config FILE] [--SETTING VALUE]...",
    "",
    "Serves the claude CLI of this machine to phones, browsers and terminals.",
    "",
    "  --config\n      YAML file with settings [PA_CONFIG, default $CONFIG_HOME/pocket-agent/config.yaml]",
    ...flags,
    "  --help\n      Print this text",
    "  --version\n      Print the version",
  ].join("\n");
}

/** What cannot be served safely, as things are. */
function refusals(config: Config): string[] {
  const problems: string[] = [];
  if (config.tlsEnabled) problems.push("server.tls.enabled: TLS cannot be served yet");
  if (!["127.0.0.1", "::1", "localhost"].includes(config.host))
    problems.push(
      `server.host: only a loopback address can be served without TLS and authentication, not ${show(config.host)}`,
    );
  return problems;
}

function readFlags(argv: readonly string[], problems: string[]): Map<string, string> {
  const flags = new Map<string, string>();
  const booleans = new Set(
    names.filter((name) => typeof rows[name].default === "boolean").map(flagOf),
  );
  const known = new Set(["config", ...names.map(flagOf)]);
  for (let at = 0; at < argv.length; at += 1) {
    const argument = argv[at] ?? "";
    const [, flag = "", given] = /^--([^=]+)(?:=(.*))?$/s.exec(argument) ?? [];
    const negated = flag.startsWith("no-") && booleans.has(flag.slice(3));
    if (negated && given === undefined) flags.set(flag.slice(3), "false");
    else if (!known.has(flag)) problems.push(`${argument}: unknown argument`);
    else if (given !== undefined) flags.set(flag, given);
    else if (booleans.has(flag)) flags.set(flag, "true");
    else if (argv[at + 1] === undefined) problems.push(`${argument}: Expected a value`);
    else flags.set(flag, argv[(at += 1)] ?? "");
  }
  return flags;
}

function readFile(named: string | undefined, env: Environment, problems: string[]) {
  const path = named ?? platformPath("$CONFIG_HOME/pocket-agent/config.yaml", env);
  const values = new Map<string, unknown>();
  if (named === undefined && !existsSync(path)) return { path, values };
  try {
    flatten(Bun.YAML.parse(readFileSync(path, "utf8")), "", values);
  } catch (error) {
    problems.push(`${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
  return { path, values };
}

/** `{ server: { port: 1 } }` becomes `server.port` → 1. */
function flatten(tree: unknown, prefix: string, into: Map<string, unknown>): void {
  if (tree === null || tree === undefined) return;
  if (typeof tree !== "object" || Array.isArray(tree)) {
    into.set(prefix || "the file", tree);
    return;
  }
  for (const [key, value] of Object.entries(tree))
    flatten(value, prefix ? `${prefix}.${key}` : key, into);
}

/** Replaces `$DATA_HOME` and `$CONFIG_HOME` by this platform's folders; the result is absolute. */
function platformPath(path: string, env: Environment): string {
  const home = env["HOME"] || homedir();
  const mac = process.platform === "darwin" ? join(home, "Library/Application Support") : undefined;
  // Its specification has everything but absolute paths ignored.
  const xdg = (name: string) => (isAbsolute(env[name] ?? "") ? env[name] : undefined);
  return resolve(
    path
      .replace("$DATA_HOME", () => mac ?? xdg("XDG_DATA_HOME") ?? join(home, ".local/share"))
      .replace("$CONFIG_HOME", () => mac ?? xdg("XDG_CONFIG_HOME") ?? join(home, ".config")),
  );
}

const show = (value: unknown): string => JSON.stringify(value);
