import { flagOf, type OptionName, type OptionRow, options } from "./contract/options.ts";

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

/** What a command was called with: its own flags and words, and settings. */
export interface Arguments {
  readonly flags: ReadonlyMap<string, string>;
  readonly words: readonly string[];
  readonly settings: readonly string[];
}

/** Tells the flags that a command has of its own, and its words, from settings. */
export function splitArguments(
  argv: readonly string[],
  own: Readonly<Record<string, "switch" | "value">>,
): Arguments {
  const flags = new Map<string, string>();
  const words: string[] = [];
  const settings: string[] = [];
  const problems: string[] = [];
  for (let at = 0; at < argv.length; at += 1) {
    const argument = argv[at] ?? "";
    const [, flag = "", given] = /^--([^=]+)(?:=(.*))?$/s.exec(argument) ?? [];
    const kind = Object.hasOwn(own, flag) ? own[flag] : undefined;
    if (flag === "") words.push(argument);
    else if (kind === "switch" && given === undefined) flags.set(flag, "true");
    else if (kind === "value" && given !== undefined) flags.set(flag, given);
    else if (kind === "value" && argv[at + 1] !== undefined) flags.set(flag, argv[(at += 1)] ?? "");
    else if (kind) problems.push(`${argument}: Expected ${kind === "value" ? "a" : "no"} value`);
    else {
      settings.push(argument);
      const next = argv[at + 1];
      if (given === undefined && takesValue(flag) && next !== undefined) {
        settings.push(next);
        at += 1;
      }
    }
  }
  if (problems.length > 0) throw new ConfigError(problems);
  return { flags, words, settings };
}

function takesValue(flag: string): boolean {
  const name = names.find((candidate) => flagOf(candidate) === flag);
  return flag === "config" || (name !== undefined && typeof rows[name].default !== "boolean");
}

/** Reads the flags of settings. What is wrong with them is added to `problems`. */
export function readFlags(argv: readonly string[], problems: string[]): Map<string, string> {
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
