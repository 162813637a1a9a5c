import { lstatSync, readdirSync, type Stats, statSync } from "node:fs";
import { join } from "node:path";
import { forbidden } from "../access/owned-file.ts";
import { systemCode } from "./storage-fault.ts";

/** The single files beside these are looked at when they are read. */
const folders = ["certs", "projects", "runs", "trash"];
/** What of a project decides what is run in it; its logs' files are looked at when they are opened. */
const parts = ["", "/logs", "/metadata.json", "/executions.json"];

/**
 * Refuses a data directory in which somebody else could have put or changed something: what lies there
 * is believed, down to the prompts that wait to be run. To be called by whoever holds its lock.
 */
export function refuseForeign(dataDir: string): void {
  for (const name of folders) check(join(dataDir, name));
  const projects = join(dataDir, "projects");
  if (!statSync(projects, { throwIfNoEntry: false })?.isDirectory()) return;
  for (const entry of readdirSync(projects, { withFileTypes: true }))
    if (!entry.isFile()) checkProject(`${projects}/${entry.name}`);
}

/** What may not be looked at is not believed either: its project is left out when it is loaded. */
function checkProject(folder: string): void {
  try {
    for (const part of parts) check(`${folder}${part}`);
  } catch (error) {
    if (systemCode(error) !== "EACCES") throw error;
  }
}

/** Whether somebody else than this user or root has made it. */
export function isForeign({ uid }: Pick<Stats, "uid">): boolean {
  return uid !== 0 && uid !== process.getuid?.();
}

function check(path: string): void {
  const entry = lstatSync(path, { throwIfNoEntry: false });
  if (!entry) return;
  // A link may lead to another disk, but not at somebody else's will.
  const target = entry.isSymbolicLink() ? statSync(path, { throwIfNoEntry: false }) : entry;
  if (isForeign(entry) || (target && isForeign(target)))
    throw refusal(path, "it belongs to another user", "take it over with chown");
  if (target && (target.mode & forbidden.writing) !== 0)
    throw refusal(path, "others may change it", "close it to them with chmod go-w");
}

function refusal(path: string, problem: string, remedy: string): Error {
  return new Error(`Cannot use "${path}": ${problem}; look at it, then ${remedy}, or move it away`);
}
