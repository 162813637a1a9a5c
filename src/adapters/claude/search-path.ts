import { userInfo } from "node:os";
import { delimiter, isAbsolute } from "node:path";
import { findProgram } from "./binary.ts";
import { cleanEnvironment, type Environment } from "./environment.ts";

const timeoutMs = 5_000;
/** What comes before the answer is what rc files print. */
const maxChars = 1_048_576;

/** Directories that programs are looked for in. */
export interface SearchPath {
  readonly path: string;
  /** The login shell that named some of them. */
  readonly shell: string | null;
}

/**
 * Where the CLI is looked for, and the agent's tools: in the server's own PATH and, if that is a
 * service's or has no such program, first in what the account's login shell makes of it.
 */
export async function searchPath(binary: string, env: Environment): Promise<SearchPath> {
  const own = env["PATH"] ?? "";
  const isService = env["NOTIFY_SOCKET"] !== undefined || env["XPC_SERVICE_NAME"] === serviceLabel;
  const found = isAbsolute(binary) || findProgram(binary, { searchPath: own, project: null });
  if (found && !isService) return { path: own, shell: null };
  const shell = env["SHELL"] || userInfo().shell || "";
  const said = isAbsolute(shell) ? await askShell(shell, env) : undefined;
  const known = own.split(delimiter).filter((name) => name !== "");
  const named = (said ?? "").split(delimiter).filter((name) => isAbsolute(name));
  if (named.every((name) => known.includes(name))) return { path: own, shell: null };
  // In the order of the terminal, where a newer program may hide the system's.
  return { path: [...new Set([...named, ...known])].join(delimiter), shell };
}

/** What launchd calls the service, and tells it. */
export const serviceLabel = "pocket-agent-server";

/** The PATH of a login shell that a person would type into; undefined if it does not say in time. */
async function askShell(shell: string, env: Environment): Promise<string | undefined> {
  const marker = crypto.randomUUID();
  let child;
  try {
    child = Bun.spawn([shell, "-lic", `printf '%s' '${marker}' "$PATH" '${marker}'`], {
      cwd: "/",
      env: cleanEnvironment({ environment: env, extraEnv: [], sshAgent: true }),
      stdin: "ignore",
      stdout: "pipe",
      stderr: "ignore",
      // A session of its own: it finds no terminal to ask, and is a group that can be killed.
      detached: true,
    });
  } catch {
    // An account without a shell has no other PATH either.
    return undefined;
  }
  const { pid } = child;
  const late = setTimeout(() => end(pid), timeoutMs);
  const said = await answer(child.stdout, marker, child.exited);
  clearTimeout(late);
  // What rc files have started for good stays, as it does when a terminal is opened.
  if (said === undefined) end(pid);
  return said;
}

/** What stands between two markers; what rc files have started may hold the pipe open for ever. */
async function answer(
  stdout: ReadableStream<Uint8Array>,
  marker: string,
  exited: Promise<number>,
): Promise<string | undefined> {
  const decoder = new TextDecoder();
  const reader = stdout.getReader();
  const over = exited.then(() => Bun.sleep(200)).then(() => ({ done: true, value: undefined }));
  let text = "";
  try {
    while (text.length < maxChars) {
      const [, said, behind] = text.split(marker);
      if (behind !== undefined) return said;
      // oxlint-disable-next-line no-await-in-loop -- one chunk after the other
      const { done, value } = await Promise.race([reader.read(), over]);
      if (done || !value) return undefined;
      text += decoder.decode(value, { stream: true });
    }
    return undefined;
  } finally {
    await reader.cancel();
  }
}

function end(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // Nothing of it is left.
  }
}
