import { realpathSync } from "node:fs";
import { resolve, sep } from "node:path";
import type { Arguments } from "./arguments.ts";
import { isFields, type Fields } from "./record.ts";

const EDITS = new Set(["Write", "Edit", "NotebookEdit"]);
const HARMLESS = new Set(["Agent", "Glob", "Grep", "Skill", "TaskCreate", "TaskGet", "TaskList"]);
const DIALOGUES = new Set(["AskUserQuestion", "ExitPlanMode"]);

/** Whether a tool may run: at once, after asking, or not at all with what the model is told. */
export type Verdict =
  | { readonly kind: "allow" | "ask" }
  | { readonly kind: "deny"; readonly message: string; readonly announced: boolean };

/** The permission mode and the rules in force, decided as the CLI does. */
export class Permissions {
  mode: string;
  readonly #live: boolean;
  readonly #mayBypass: boolean;
  readonly #allowed: string[];
  readonly #denied: readonly string[];
  readonly #folders: string[];

  constructor(given: Arguments) {
    const skip = given.has("--dangerously-skip-permissions");
    // Skipping wins over any mode.
    this.mode = skip ? "bypassPermissions" : (given.value("--permission-mode") ?? "default");
    this.#mayBypass = skip || given.has("--allow-dangerously-skip-permissions");
    this.#live = given.value("--permission-prompt-tool") === "stdio";
    this.#allowed = [...given.rules("--allowed-tools")];
    this.#denied = given.rules("--disallowed-tools");
    this.#folders = [
      realpathSync(process.cwd()),
      ...given.list("--add-dir").map((d) => resolve(d)),
    ];
  }

  /** Takes any mode, as the CLI does; returns why not. */
  setMode(mode: string): string | undefined {
    if (mode === "bypassPermissions" && !this.#mayBypass && this.mode !== mode) {
      return "Cannot set permission mode to bypassPermissions because the session was not launched with --dangerously-skip-permissions";
    }
    this.mode = mode;
    return undefined;
  }

  decide(tool: string, input: Fields): Verdict {
    if (this.#denied.some((rule) => matches(rule, tool, input))) {
      return deny(`Permission to use ${tool} has been denied.`);
    }
    if (this.#live && DIALOGUES.has(tool)) return { kind: "ask" };
    if (this.mode === "bypassPermissions") return { kind: "allow" };
    if (this.mode === "plan" && EDITS.has(tool)) {
      return deny(`Cannot write to ${String(input["file_path"])} while in plan mode.`);
    }
    if (this.#harmless(tool, input)) return { kind: "allow" };
    if (this.#allowed.some((rule) => matches(rule, tool, input))) return { kind: "allow" };
    if (this.mode === "dontAsk") {
      const message = `Permission to use ${tool} has been denied because Claude Code is running in don't ask mode.`;
      return { kind: "deny", message, announced: this.#live };
    }
    if (this.#live) return { kind: "ask" };
    return deny(`Claude requested permissions to use ${tool}, but you haven't granted it yet.`);
  }

  /** What the CLI suggests for "always allow". */
  suggestions(tool: string, input: Fields): readonly Fields[] {
    if (DIALOGUES.has(tool)) return [];
    if (EDITS.has(tool)) return [{ type: "setMode", mode: "acceptEdits", destination: "session" }];
    const command = input["command"];
    const rule = typeof command === "string" ? { ruleContent: command } : {};
    return [
      {
        type: "addRules",
        rules: [{ toolName: tool, ...rule }],
        behavior: "allow",
        destination: "localSettings",
      },
    ];
  }

  /** Applies `updatedPermissions`; returns the mode if that was changed. */
  update(updates: readonly unknown[]): string | undefined {
    let mode: string | undefined;
    for (const update of updates.filter(isFields)) {
      if (update["type"] === "setMode" && typeof update["mode"] === "string") {
        mode = update["mode"];
        this.mode = mode;
      }
      const { rules, directories } = update;
      if (update["type"] === "addRules" && Array.isArray(rules)) {
        this.#allowed.push(...rules.filter(isFields).map(ruleText));
      }
      if (update["type"] === "addDirectories" && Array.isArray(directories)) {
        this.#folders.push(...directories.map(String));
      }
    }
    return mode;
  }

  #harmless(tool: string, input: Fields): boolean {
    if (HARMLESS.has(tool)) return true;
    const path = input["file_path"];
    if (typeof path !== "string") return false;
    if (tool !== "Read" && !(EDITS.has(tool) && this.mode === "acceptEdits")) return false;
    const absolute = resolve(path);
    return this.#folders.some((folder) => absolute.startsWith(folder + sep));
  }
}

function deny(message: string): Verdict {
  return { kind: "deny", message, announced: false };
}

function ruleText(rule: Fields): string {
  const { toolName, ruleContent } = rule;
  return typeof ruleContent === "string" ? `${String(toolName)}(${ruleContent})` : String(toolName);
}

/** Names are case-sensitive. Contents are matched for Bash only: exact, or a prefix with a star. */
function matches(rule: string, tool: string, input: Fields): boolean {
  const open = rule.indexOf("(");
  if (open < 0) return rule === tool;
  if (rule.slice(0, open) !== tool || tool !== "Bash") return false;
  const content = rule.slice(open + 1, -1);
  const command = String(input["command"]);
  const prefix = /^(.*?):?\*$/s.exec(content)?.[1];
  return prefix === undefined ? command === content : command.startsWith(prefix.trimEnd());
}
