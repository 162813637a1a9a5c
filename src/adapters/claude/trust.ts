import { readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import * as v from "valibot";
import type { Environment } from "./environment.ts";

const settings = v.object({
  projects: v.optional(
    v.record(v.string(), v.object({ hasTrustDialogAccepted: v.optional(v.unknown()) })),
  ),
});

/** The CLI's own record of the directories whose trust dialog was accepted. */
export class TrustRecord {
  readonly #file: string;
  #version = "";
  #accepted: ReadonlySet<string> = new Set();

  constructor(environment: Environment) {
    const dir = environment["CLAUDE_CONFIG_DIR"] || environment["HOME"] || homedir();
    this.#file = join(dir, ".claude.json");
  }

  /** As the CLI sees it: a directory is trusted when it, or one above it, was accepted. */
  trusts(path: string): boolean {
    const accepted = this.#read();
    for (let at = path; ; at = dirname(at)) {
      if (accepted.has(at)) return true;
      if (at === dirname(at)) return false;
    }
  }

  /** Read again only when the file has changed: it can hold megabytes. */
  #read(): ReadonlySet<string> {
    try {
      const { mtimeMs, size, ino } = statSync(this.#file);
      const version = `${mtimeMs} ${size} ${ino}`;
      if (version === this.#version) return this.#accepted;
      this.#accepted = acceptedIn(readFileSync(this.#file, "utf8"));
      this.#version = version;
    } catch {
      // Missing, unreadable or half written: nothing is trusted until it says so again.
      this.#version = "";
      this.#accepted = new Set();
    }
    return this.#accepted;
  }
}

function acceptedIn(text: string): ReadonlySet<string> {
  const { projects = {} } = v.parse(settings, JSON.parse(text));
  const entries = Object.entries(projects);
  return new Set(
    entries.filter(([, { hasTrustDialogAccepted: yes }]) => yes === true).map(([path]) => path),
  );
}
