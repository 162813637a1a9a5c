import { existsSync } from "node:fs";
import { isFields } from "./record.ts";

/** The command line cannot be followed: what the CLI prints before it exits with 1. */
export class Refusal extends Error {}

/** A `switch` has no value, a `value` one; a `list` also swallows the words behind it. */
const KINDS = {
  "--print": "switch",
  "--verbose": "switch",
  "--output-format": "value",
  "--input-format": "value",
  "--permission-prompt-tool": "value",
  "--include-partial-messages": "switch",
  "--resume": "value",
  "--session-id": "value",
  "--fork-session": "switch",
  "--no-session-persistence": "switch",
  "--permission-mode": "value",
  "--dangerously-skip-permissions": "switch",
  "--allow-dangerously-skip-permissions": "switch",
  "--model": "value",
  "--fallback-model": "value",
  "--append-system-prompt": "value",
  "--system-prompt": "value",
  "--allowed-tools": "list",
  "--disallowed-tools": "list",
  "--tools": "list",
  "--add-dir": "list",
  "--mcp-config": "list",
  "--strict-mcp-config": "switch",
  "--max-turns": "value",
  "--max-budget-usd": "value",
  "--setting-sources": "value",
  "--settings": "value",
  "--replay-user-messages": "switch",
  "--effort": "value",
  "--name": "value",
} as const;

const ALIASES: Readonly<Record<string, OptionName>> = {
  "-p": "--print",
  "-r": "--resume",
  "-n": "--name",
  "--allowedTools": "--allowed-tools",
  "--disallowedTools": "--disallowed-tools",
};

const MODES = ["acceptEdits", "auto", "bypassPermissions", "default", "dontAsk", "plan"];
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

type OptionName = keyof typeof KINDS;

/** The command line, read and found usable. */
export class Arguments {
  readonly #values = new Map<OptionName, string[]>();
  readonly prompt: string;

  constructor(argv: readonly string[]) {
    const words = [...argv];
    const positional: string[] = [];
    for (let word = words.shift(); word !== undefined; word = words.shift()) {
      if (word === "--") positional.push(...words.splice(0));
      else if (word.startsWith("-")) this.#option(word, words);
      else positional.push(word);
    }
    this.prompt = positional.join(" ");
    this.#check();
  }

  has(name: OptionName): boolean {
    return this.#values.has(name);
  }

  value(name: OptionName): string | undefined {
    return this.#values.get(name)?.at(-1);
  }

  list(name: OptionName): readonly string[] {
    return this.#values.get(name) ?? [];
  }

  /** Tool rules: entries may hold several, parted by commas or blanks outside parentheses. */
  rules(name: "--allowed-tools" | "--disallowed-tools"): readonly string[] {
    return this.list(name).flatMap((entry) => entry.match(/[^\s,(]+(\([^)]*\))?/g) ?? []);
  }

  #option(word: string, rest: string[]): void {
    const equals = word.startsWith("--") ? word.indexOf("=") : -1;
    const given = equals < 0 ? word : word.slice(0, equals);
    const name = ALIASES[given] ?? given;
    if (!isOption(name)) throw new Refusal(`error: unknown option '${given}'`);
    const values = this.#values.get(name) ?? [];
    this.#values.set(name, values);
    if (KINDS[name] === "switch") return;
    if (equals >= 0) {
      values.push(word.slice(equals + 1));
      return;
    }
    const value = rest.shift();
    if (value === undefined) {
      throw new Refusal(`error: option '${given} <value>' argument missing`);
    }
    values.push(value);
    if (KINDS[name] !== "list") return;
    while (rest[0] !== undefined && !rest[0].startsWith("-")) values.push(rest.shift() ?? "");
  }

  #check(): void {
    const mode = this.value("--permission-mode");
    if (mode !== undefined && !MODES.includes(mode)) {
      throw new Refusal(
        `error: option '--permission-mode <mode>' argument '${mode}' is invalid. ` +
          `Allowed choices are ${MODES.join(", ")}.`,
      );
    }
    this.#checkRoot(mode);
    const streams = this.value("--output-format") === "stream-json";
    if (this.value("--input-format") === "stream-json" && !streams) {
      throw new Refusal("Error: --input-format=stream-json requires output-format=stream-json.");
    }
    if (streams && !this.has("--verbose")) {
      throw new Refusal(
        "Error: When using --print, --output-format=stream-json requires --verbose",
      );
    }
    if (this.has("--include-partial-messages") && !streams) {
      throw new Refusal(
        "Error: --include-partial-messages requires --print and --output-format=stream-json.",
      );
    }
    this.#checkSession();
    this.#checkFiles();
  }

  #checkRoot(mode: string | undefined): void {
    const bypass =
      mode === "bypassPermissions" ||
      this.has("--dangerously-skip-permissions") ||
      this.has("--allow-dangerously-skip-permissions");
    if (!bypass || process.getuid?.() !== 0 || process.env["IS_SANDBOX"] === "1") return;
    throw new Refusal(
      "--dangerously-skip-permissions cannot be used with root/sudo privileges for security reasons",
    );
  }

  #checkSession(): void {
    const id = this.value("--session-id");
    if (id === undefined) return;
    if (this.has("--resume") && !this.has("--fork-session")) {
      throw new Refusal(
        "Error: --session-id can only be used with --continue or --resume if --fork-session is also specified.",
      );
    }
    if (!isUuid(id)) throw new Refusal("Error: Invalid session ID. Must be a valid UUID.");
  }

  #checkFiles(): void {
    const settings = this.value("--settings");
    if (settings !== undefined && !parse(settings) && !existsSync(settings)) {
      throw new Refusal(`Error: Settings file not found: ${settings}`);
    }
    for (const config of this.list("--mcp-config")) {
      const problem = mcpProblem(config);
      if (problem) throw new Refusal(`Error: Invalid MCP configuration:\n${problem}`);
    }
  }
}

/** Whether the CLI takes this as a session id. */
export function isUuid(text: string): boolean {
  return UUID.test(text);
}

function isOption(name: string): name is OptionName {
  return Object.hasOwn(KINDS, name);
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Not JSON: the option may still name a file.
    return undefined;
  }
}

function mcpProblem(config: string): string | undefined {
  const value = parse(config);
  if (value === undefined) {
    return existsSync(config) ? undefined : `MCP config file not found: ${config}`;
  }
  if (isFields(value) && isFields(value["mcpServers"])) return undefined;
  const found = isFields(value) ? Object.keys(value)[0] : undefined;
  return (
    `mcpServers: Missing "mcpServers"${found ? ` — found "${found}" instead` : ""}. ` +
    `Claude Code reads MCP servers from the "mcpServers" key.`
  );
}
