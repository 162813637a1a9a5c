import type { Dirent } from "node:fs";
import { readdir, realpath, stat } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";

/** A directory, by the name it has where it was found. Its path is real: a link's is its target's. */
export interface DirectoryEntry {
  readonly name: string;
  readonly path: string;
}

/** More than this nobody would look through. */
const maxEntries = 10_000;
/** Control characters, and what is read where a name is not UTF-8: no client could send that back. */
const unspeakable = /[\p{Cc}\uFFFD]/u;
/** The same on every machine, whatever its language. */
const order = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** The directories in a directory, by name, hidden ones last; rejects with the system's error. */
export async function directoriesIn(folder: string): Promise<DirectoryEntry[]> {
  const found = await readdir(folder, { withFileTypes: true });
  // Links may lead to a directory, and some file systems do not say what is one.
  const candidates = found.filter((entry) => !entry.isFile() && !unspeakable.test(entry.name));
  const entries = await Promise.all(
    (await firstByName(candidates)).map(async (entry) => {
      const path = join(folder, entry.name);
      const real = entry.isDirectory() ? path : await directoryBehind(path);
      return real === undefined ? [] : [{ name: entry.name, path: real }];
    }),
  );
  return entries.flat();
}

/** Those of some paths that lead to a directory, by name, which is the whole path. */
export async function directoriesAmong(paths: readonly string[]): Promise<DirectoryEntry[]> {
  const entries = await Promise.all(
    paths.map(async (name) => {
      const path = await directoryBehind(name);
      return path === undefined ? [] : [{ name, path }];
    }),
  );
  return entries.flat().toSorted(byName);
}

/** In steps, because a folder may hold a million and others want to be served meanwhile. */
async function firstByName(candidates: readonly Dirent[]): Promise<Dirent[]> {
  let first: Dirent[] = [];
  for (let at = 0; at < candidates.length; at += maxEntries) {
    const more = candidates.slice(at, at + maxEntries);
    first = [...first, ...more].toSorted(byName).slice(0, maxEntries);
    // oxlint-disable-next-line no-await-in-loop -- that is the point
    await setImmediate();
  }
  return first;
}

function byName({ name: a }: { name: string }, { name: b }: { name: string }): number {
  const hidden = Number(a.startsWith(".")) - Number(b.startsWith("."));
  return hidden || order.compare(a, b) || (a < b ? -1 : 1);
}

async function directoryBehind(path: string): Promise<string | undefined> {
  try {
    const real = await realpath(path);
    return (await stat(real)).isDirectory() ? real : undefined;
  } catch {
    // It leads nowhere, or to where the server may not go.
    return undefined;
  }
}
