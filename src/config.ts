import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import * as v from "valibot";
import { readOwned } from "./access/owned-file.ts";
import { ConfigError, readFlags } from "./arguments.ts";
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
/** The source of what nobody has set. */
const byDefault = "default";

/**
 * Reads flags, environment and file, in this precedence, into one Config. Throws one ConfigError
 * that lists every problem with its source. What only a server must not do is no problem for who
 * does not serve.
 */
export function loadConfig(
  argv: readonly string[],
  env: Environment,
  { serving = true }: { serving?: boolean } = {},
): Config {
  const { config, found, problems } = read(argv, env);
  if (problems.length > 0) throw new ConfigError(problems);
  const dataDir = platformPath(config.dataDir, env);
  if (serving) problems.push(...refusals(config));
  const workTree = found.get("dataDir")?.source === byDefault ? workTreeOf(dataDir) : undefined;
  if (workTree !== undefined)
    problems.push(
      `data.dir: the default, ${dataDir}, is inside the git work tree ${workTree}, which could bring its own keys; name it, or another, to use it`,
    );
  if (problems.length > 0) throw new ConfigError(problems);
  return { ...config, dataDir };
}

/** Every setting as somebody wrote it, and where. Throws as `loadConfig` does for a server. */
export function settingsOf(
  argv: readonly string[],
  env: Environment,
): { file: string; value: unknown; source: string }[] {
  const { dataDir } = loadConfig(argv, env);
  const { found } = read(argv, env);
  return names.map((name) => {
    const { source, value } = found.get(name) ?? { source: byDefault, value: null };
    const hidden = rows[name].secret && value !== null;
    const shown = hidden ? "(set)" : name === "dataDir" ? dataDir : value;
    return { file: rows[name].file, value: shown, source };
  });
}

/** Reads every setting from the first place that has it. */
function read(argv: readonly string[], env: Environment) {
  const problems: string[] = [];
  const flags = readFlags(argv, problems);
  const file = readFile(flags.get("config") ?? env["PA_CONFIG"], env, problems);
  const known = new Set<string>(names.map((name) => rows[name].file));
  for (const key of file.values.keys())
    if (!known.has(key)) problems.push(`${key} in ${file.path}: unknown setting`);
  const variables = new Set(["PA_CONFIG", ...names.map((name) => rows[name].env)]);
  for (const key of Object.keys(env))
    if (key.startsWith("PA_") && !variables.has(key)) problems.push(`${key}: unknown setting`);

  const found = new Map<OptionName, Candidate>();
  const entries = names.map((name) => {
    const row = rows[name];
    const candidates: Candidate[] = [
      { source: `--${flagOf(name)}`, value: flags.get(flagOf(name)) },
      { source: row.env, value: env[row.env] },
      { source: `${row.file} in ${file.path}`, value: file.values.get(row.file) },
    ];
    const first = candidates.find(({ value }) => value !== undefined);
    const { source, value } = first ?? { source: byDefault, value: row.default };
    found.set(name, { source, value });
    const result = v.safeParse(row.type, value);
    if (!result.success) {
      const instead = row.secret ? "" : `, not ${show(value)}`;
      problems.push(`${source}: ${result.issues[0].message}${instead}`);
    }
    return [name, result.output];
  });
  // Valid as soon as there are no problems, which is when it is looked at.
  const config: Config = Object.fromEntries(entries);
  return { config, found, problems };
}

/** The platform's folder for settings, and the file that these flags or this environment name. */
export function configPaths(argv: readonly string[], env: Environment): string[] {
  const named = readFlags(argv, []).get("config") ?? env["PA_CONFIG"];
  return [dirname(platformFile(env)), ...(named === undefined ? [] : [resolve(named)])];
}

const platformFile = (env: Environment) =>
  platformPath("$CONFIG_HOME/pocket-agent/config.yaml", env);

/** The text of `--help`, with what each command is about. */
export function help(commands: Readonly<Record<string, { readonly about: string }>>): string {
  const flags = names.map((name) => {
    const { env, about, default: value } = rows[name];
    const otherwise = value === null ? "" : `, default ${String(value)}`;
    return `  --${flagOf(name)}\n      ${about} [${env}${otherwise}]`;
  });
  return [
    "Usage: pocket-agent-server [COMMAND] [--config FILE] [--SETTING VALUE]...",
    "",
    "Serves the claude CLI of this machine to phones, browsers and terminals.",
    "",
    "Commands; each has a --help of its own:",
    ...Object.entries(commands).map(([name, { about }]) => `  ${name.padEnd(9)}${about}`),
    "",
    "Settings:",
    "  --config\n      YAML file with settings [PA_CONFIG, default $CONFIG_HOME/pocket-agent/config.yaml]",
    ...flags,
    "  --help\n      Print this text",
    "  --version\n      Print the version",
  ].join("\n");
}

/** What cannot be served safely, as things are. */
function refusals(config: Config): string[] {
  const { authMode, host, insecure, tlsCert, tlsEnabled, tlsKey } = config;
  const { notifyNtfy, notifyNtfyToken } = config;
  const problems: string[] = [];
  if (authMode === "none" && !insecure)
    problems.push(
      "auth.mode: none makes everybody the owner who can reach the port, every user and web proxy of this machine among them; --insecure accepts that",
    );
  if (!tlsEnabled && !insecure && !isLoopback(host))
    problems.push(
      `server.tls.enabled: without TLS everybody on the way can read along, and only a loopback address is served, not ${show(host)}; --insecure accepts that`,
    );
  if ((tlsCert === null) !== (tlsKey === null))
    problems.push("server.tls.cert, server.tls.key: each needs the other");
  if (notifyNtfyToken !== null && notifyNtfy === null)
    problems.push("notify.ntfy_token: there is no notify.ntfy that it is for");
  if (notifyNtfyToken !== null && notifyNtfy !== null && !insecure && isOpenToAll(notifyNtfy))
    problems.push(
      "notify.ntfy_token: without https everybody on the way could read it; --insecure accepts that",
    );
  return problems;
}

/** Whether only this machine can reach an address. */
export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}

/** Whether what is sent to an address can be read on the way. */
function isOpenToAll(address: string): boolean {
  const { protocol, hostname } = new URL(address);
  return protocol === "http:" && !isLoopback(hostname.replace(/^\[|\]$/g, ""));
}

/** The nearest folder at or above a path that is a git work tree. */
function workTreeOf(path: string): string | undefined {
  if (existsSync(join(path, ".git"))) return path;
  const parent = dirname(path);
  return parent === path ? undefined : workTreeOf(parent);
}

function readFile(named: string | undefined, env: Environment, problems: string[]) {
  const path = named ?? platformFile(env);
  const values = new Map<string, unknown>();
  if (named === undefined && !existsSync(path)) return { path, values };
  try {
    // Whoever can write it decides which programs are run.
    const content = readOwned(path);
    if (!content) throw new Error("there is no such file");
    flatten(Bun.YAML.parse(content.toString()), "", values);
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
  const home = homeOf(env);
  const mac = process.platform === "darwin" ? join(home, "Library/Application Support") : undefined;
  // Its specification has everything but absolute paths ignored.
  const xdg = (name: string) => (isAbsolute(env[name] ?? "") ? env[name] : undefined);
  return resolve(
    path
      .replace("$DATA_HOME", () => mac ?? xdg("XDG_DATA_HOME") ?? join(home, ".local/share"))
      .replace("$CONFIG_HOME", () => mac ?? xdg("XDG_CONFIG_HOME") ?? join(home, ".config")),
  );
}

function homeOf(env: Environment): string {
  try {
    return env["HOME"] || homedir();
  } catch {
    // The account is in no list of accounts, as may be in a container.
    throw new ConfigError(["HOME: it is not set, and this account has no home directory; set it"]);
  }
}

const show = (value: unknown): string => JSON.stringify(value);
