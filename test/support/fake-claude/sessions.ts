import { appendFileSync, existsSync, mkdirSync, readFileSync, realpathSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { isUuid, Refusal, type Arguments } from "./arguments.ts";
import { usage } from "./printer.ts";
import { isFields, type Fields } from "./record.ts";

const MAX_KEY = 200;

/** The file that keeps one session, where the CLI would keep it: bound to the working directory. */
export class SessionFile {
  readonly id: string;
  readonly #path: string;
  readonly #cwd = realpathSync(process.cwd());
  #folder: string;
  #last: string | null = null;

  constructor(id: string) {
    this.id = id;
    const home = process.env["CLAUDE_CONFIG_DIR"] ?? join(homedir(), ".claude");
    this.#folder = join(home, "projects", projectKey(this.#cwd));
    this.#path = join(this.#folder, `${id}.jsonl`);
  }

  /** Whether it holds a conversation that was held in this directory. */
  get exists(): boolean {
    // The key of a folder is lossy, so the directory inside the file decides.
    return this.#lines().some((line) => line["cwd"] === this.#cwd);
  }

  /** The ids of the user's messages: the CLI drops a message that it has seen before. */
  userMessages(): readonly string[] {
    return this.#lines().flatMap((line) =>
      line["type"] === "user" && typeof line["uuid"] === "string" ? [line["uuid"]] : [],
    );
  }

  append(type: "user" | "assistant", uuid: string, message: Fields): void {
    mkdirSync(this.#folder, { recursive: true });
    const line = {
      parentUuid: this.#last,
      isSidechain: false,
      type,
      message,
      uuid,
      timestamp: new Date().toISOString(),
      userType: "external",
      entrypoint: "sdk-cli",
      cwd: this.#cwd,
      sessionId: this.id,
      version: "2.1.197",
      gitBranch: "",
    };
    appendFileSync(this.#path, `${JSON.stringify(line)}\n`, { mode: 0o600 });
    this.#last = uuid;
  }

  /** A copy under another id, as `--fork-session` makes it. */
  fork(id: string): SessionFile {
    const copy = new SessionFile(id);
    for (const line of this.#lines()) {
      const { type, uuid, message } = line;
      if (type !== "user" && type !== "assistant") continue;
      if (typeof uuid === "string" && isFields(message)) copy.append(type, uuid, message);
    }
    return copy;
  }

  #lines(): readonly Fields[] {
    if (!existsSync(this.#path)) return [];
    const text = readFileSync(this.#path, "utf8");
    return text.split("\n").flatMap((line): readonly Fields[] => {
      const value: unknown = line ? JSON.parse(line) : undefined;
      return isFields(value) ? [value] : [];
    });
  }
}

function projectKey(cwd: string): string {
  const key = cwd.normalize("NFC").replaceAll(/[^a-zA-Z0-9]/g, "-");
  return key.length > MAX_KEY ? `${key.slice(0, MAX_KEY)}-${Bun.hash(cwd).toString(36)}` : key;
}

/** The session that the command line asks for: new, resumed, or a copy. */
export function chooseSession(given: Arguments): SessionFile {
  const wanted = given.value("--session-id");
  const resumed = given.value("--resume");
  if (resumed === undefined) {
    const session = new SessionFile(wanted ?? crypto.randomUUID());
    if (wanted === undefined || !session.exists) return session;
    throw new Refusal(`Error: Session ID ${wanted} is already in use.`);
  }
  const session = new SessionFile(resumed);
  if (!isUuid(resumed)) {
    throw unknownSession(
      `Error: --resume requires a valid session ID or session title when used with --print. ` +
        `Usage: claude -p --resume <session-id|title>. Provided value "${resumed}" is not a UUID and does not match any session title.`,
      crypto.randomUUID(),
    );
  }
  if (!session.exists) {
    throw unknownSession(`No conversation found with session ID: ${resumed}`, resumed);
  }
  return given.has("--fork-session") ? session.fork(wanted ?? crypto.randomUUID()) : session;
}

/** Both streams say it: stderr, and a result that nobody asked for. */
function unknownSession(message: string, sessionId: string): Refusal {
  const result = {
    type: "result",
    subtype: "error_during_execution",
    duration_ms: 0,
    duration_api_ms: 0,
    is_error: true,
    num_turns: 0,
    stop_reason: null,
    session_id: sessionId,
    total_cost_usd: 0,
    usage: usage(0, 0),
    modelUsage: {},
    permission_denials: [],
    uuid: crypto.randomUUID(),
    errors: [message],
  };
  return new Refusal(message, { cause: result });
}
