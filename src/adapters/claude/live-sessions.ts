import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { markerName } from "./environment.ts";

const record = v.looseObject({
  pid: v.number(),
  sessionId: v.string(),
  procStart: v.optional(v.union([v.string(), v.number()])),
  entrypoint: v.optional(v.string()),
});

/**
 * The sessions that are open in a terminal now, by the CLI's own `sessions/<pid>.json`. A record is
 * believed only while its process lives, and this server's own agents do not count.
 */
export async function liveSessions(root: string): Promise<ReadonlySet<string>> {
  const folder = join(root, "sessions");
  const live = new Set<string>();
  for (const name of await names(folder)) {
    // oxlint-disable-next-line no-await-in-loop -- a handful of small files
    const parsed = v.safeParse(record, parse(await read(join(folder, name))));
    if (!parsed.success || parsed.output.entrypoint?.startsWith("sdk-")) continue;
    const { pid, sessionId, procStart } = parsed.output;
    // oxlint-disable-next-line no-await-in-loop -- as above
    if (await isTerminal(pid, procStart)) live.add(sessionId);
  }
  return live;
}

async function isTerminal(pid: number, start: string | number | undefined): Promise<boolean> {
  if (process.platform !== "linux") return isAlive(pid);
  const status = await read(`/proc/${pid}/stat`);
  // The name before the last parenthesis may hold anything; the start time is field 22.
  const startedAt = status.slice(status.lastIndexOf(")") + 2).split(" ")[19];
  if (startedAt === undefined || (start !== undefined && startedAt !== String(start))) return false;
  const environment = await read(`/proc/${pid}/environ`);
  return !environment.split("\0").some((entry) => entry.startsWith(`${markerName}=`));
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    // Gone, or somebody else's and so not this person's terminal.
    return false;
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Being written, or no record at all.
    return undefined;
  }
}

async function names(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch {
    // No CLI has ever run in a terminal here.
    return [];
  }
}

async function read(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch {
    // It ended since it was listed.
    return "";
  }
}
