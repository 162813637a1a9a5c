import { readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { version } from "../version.ts";
import { systemCode } from "./storage-fault.ts";

/** How everything in a data directory is written. A change that older servers cannot read adds 1. */
const current = 1;

/**
 * Refuses a data directory of another format, and notes the format in one that has none noted yet:
 * it is new, or of before that was done. To be called by whoever holds its lock.
 *
 * A migration from an older format belongs here: a copy by `backup` beside the directory first, then
 * the change, then the note. There is no older format yet.
 */
export function admitFormat(dataDir: string): void {
  const foreign = foreignFormat(dataDir);
  if (foreign) {
    const { cause, remedy } = foreign;
    throw new Error(`Cannot use the data directory "${dataDir}": ${cause}; ${remedy}`);
  }
  if (noted(dataDir) !== undefined) return;
  const path = join(dataDir, "version");
  writeFileSync(`${path}.tmp`, `${current}\n`, { mode: 0o600, flush: true });
  renameSync(`${path}.tmp`, path);
}

/** Why this server must not touch a data directory, and what to do; undefined if it may. */
export function foreignFormat(dataDir: string): { cause: string; remedy: string } | undefined {
  const text = noted(dataDir);
  if (text === undefined || text.trim() === String(current)) return undefined;
  if (!/^[1-9]\d*\n?$/.test(text))
    return {
      cause: 'its file "version" does not say its format',
      remedy: "restore that from a backup",
    };
  return {
    cause: `it has format ${text.trim()}, made by a newer version of the server, and ${version} knows format ${current}`,
    remedy: "run the newer one, or name another with --data-dir",
  };
}

function noted(dataDir: string): string | undefined {
  try {
    return readFileSync(join(dataDir, "version"), "utf8");
  } catch (error) {
    if (systemCode(error) === "ENOENT" || systemCode(error) === "ENOTDIR") return undefined;
    throw error;
  }
}
