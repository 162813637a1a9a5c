import { accessSync, constants, realpathSync, statSync } from "node:fs";
import { delimiter, isAbsolute, join, sep } from "node:path";
import { Fault } from "../../contract/errors.ts";
import type { Telemetry } from "../../core/ports.ts";
import type { Inquiries } from "./inquiry.ts";
import { isPrivateGroup } from "./private-group.ts";

const versionLine = /^(\d+)\.(\d+)\.(\d+) \(Claude Code\)/;
const oldestThatWorks = "2.0.0";
const oldestThatIsTested = "2.1.0";
/** Versions before it take `auth status` for a prompt. */
const oldestWithAuthStatus = "2.1.41";
const loginIsCachedMs = 60_000;
const installation = "npm install -g @anthropic-ai/claude-code";

/** A program that is there: `file` tells it from the one that an update puts in its place. */
export interface Program {
  readonly path: string;
  readonly file: string;
}

/** What a program says its version is: null when it makes no sense, `known` once it has said it. */
interface Inspection {
  readonly file: string;
  readonly asked: Promise<string | null>;
  known: string | null | undefined;
}

/** The CLI on this machine: where it is, which version, and whether it is logged in. */
export class Binary {
  readonly #name: string;
  readonly #searchPath: string;
  readonly #inquiries: Inquiries;
  readonly #telemetry: Telemetry;
  #inspection: Inspection | undefined;
  #login: { readonly at: number; readonly asked: Promise<boolean | null> } | undefined;

  constructor(options: {
    readonly name: string;
    /** `PATH`, as the agent will see it. */
    readonly searchPath: string;
    readonly inquiries: Inquiries;
    readonly telemetry: Telemetry;
  }) {
    this.#name = options.name;
    this.#searchPath = options.searchPath;
    this.#inquiries = options.inquiries;
    this.#telemetry = options.telemetry;
  }

  /**
   * The program to start in a project, or why there is none. Looked up each time, as updates move
   * it; a version that is not known yet counts as good.
   */
  locate(project: string | null): Program | Fault {
    const where = { searchPath: this.#searchPath, project };
    const program = findProgram(this.#name, where);
    if (!program) return new Fault("CLAUDE_NOT_FOUND", notFound(this.#name, where));
    const version = this.#inspect(program).known;
    if (typeof version !== "string" || !isOlder(version, oldestThatWorks)) return program;
    return new Fault("CLAUDE_NOT_FOUND", tooOld(version), { version });
  }

  /** What a program says its version is; null when it does not. */
  async version(program: Program): Promise<string | null> {
    return this.#inspect(program).asked;
  }

  /** Whether somebody is logged in; null when the CLI does not say. */
  async authenticated(program: Program): Promise<boolean | null> {
    const version = await this.version(program);
    if (version === null || isOlder(version, oldestWithAuthStatus)) return null;
    const now = performance.now();
    if (!this.#login || now - this.#login.at > loginIsCachedMs) {
      this.#login = { at: now, asked: this.#askLogin(program.path) };
    }
    return this.#login.asked;
  }

  /** Asks for the version, unless it was this very program that was asked before. */
  #inspect({ path, file }: Program): Inspection {
    if (this.#inspection?.file === file) return this.#inspection;
    const asked = this.#askVersion(path);
    const inspection: Inspection = { file, asked, known: undefined };
    void asked.then((version) => (inspection.known = version));
    this.#inspection = inspection;
    this.#login = undefined;
    return inspection;
  }

  async #askVersion(path: string): Promise<string | null> {
    const answer = await this.#inquiries.ask([path, "--version"]);
    const [, ...parts] = versionLine.exec(answer?.stdout ?? "") ?? [];
    const version = parts.length === 3 ? parts.join(".") : null;
    if (version === null) {
      this.#telemetry.log("warn", "claude does not state its version", { code: answer?.code });
    } else if (isOlder(version, oldestThatIsTested)) {
      this.#telemetry.log("warn", "This version of claude is old", { version });
    }
    return version;
  }

  async #askLogin(path: string): Promise<boolean | null> {
    const answer = await this.#inquiries.ask([path, "auth", "status"]);
    try {
      const status: unknown = JSON.parse(answer?.stdout ?? "");
      if (typeof status !== "object" || status === null || !("loggedIn" in status)) return null;
      return typeof status.loggedIn === "boolean" ? status.loggedIn : null;
    } catch {
      // No answer, or not one in JSON: unknown is what health will say.
      return null;
    }
  }
}

/**
 * An absolute path as it is; a name in the directories of `searchPath`, but not in those that the
 * project, or another user, could have put a program into.
 */
export function findProgram(name: string, where: Where): Program | undefined {
  if (isAbsolute(name)) return identify(name);
  if (name.includes(sep)) return undefined;
  for (const directory of directoriesOf(where)) {
    const program = isSafe(directory, where.project) && identify(join(directory, name));
    if (program) return program;
  }
  return undefined;
}

/** Where a name is looked up, and for which project. */
interface Where {
  readonly searchPath: string;
  readonly project: string | null;
}

const directoriesOf = ({ searchPath }: Where): string[] =>
  searchPath.split(delimiter).filter((directory) => isAbsolute(directory));

/** Whether the first of two versions is the lower one. */
function isOlder(version: string, than: string): boolean {
  return Bun.semver.order(version, than) < 0;
}

function identify(path: string): Program | undefined {
  try {
    accessSync(path, constants.X_OK);
    const file = realpathSync(path);
    const stat = statSync(file);
    return stat.isFile() ? { path, file: `${file} ${stat.mtimeMs} ${stat.size}` } : undefined;
  } catch {
    // Missing, or not ours to execute.
    return undefined;
  }
}

function isSafe(directory: string, project: string | null): boolean {
  try {
    const real = realpathSync(directory);
    const { uid, gid, mode } = statSync(real);
    const ours = uid === 0 || uid === process.getuid?.();
    const shared = (mode & 0o002) !== 0 || ((mode & 0o020) !== 0 && !isPrivateGroup(gid));
    const inProject =
      project !== null && `${real}${sep}`.startsWith(`${realpathSync(project)}${sep}`);
    return ours && !shared && !inProject;
  } catch {
    // Many a PATH names directories that are not there.
    return false;
  }
}

function notFound(name: string, where: Where): string {
  if (
    directoriesOf(where).some((directory) => !name.includes(sep) && identify(join(directory, name)))
  )
    return "Cannot start claude: the one in PATH is in a folder that others may write to, or in the project (make the folder yours alone with chmod go-w, or set claude.binary to its path)";
  const cause =
    isAbsolute(name) || !name.includes(sep) ? "it is not installed" : "it is a relative path";
  return `Cannot start claude: ${cause} (install it with "${installation}", or set claude.binary to its path)`;
}

function tooOld(version: string): string {
  return `Cannot start claude: version ${version} is too old, ${oldestThatWorks} is the least (update it with "${installation}")`;
}
