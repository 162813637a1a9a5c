import { createReadStream, createWriteStream, readdirSync, readFileSync, statSync } from "node:fs";
import { mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { pipeline } from "node:stream/promises";
import type { ProjectMetadata } from "../core/ports.ts";
import { Fault } from "../contract/errors.ts";
import { systemCode } from "./storage-fault.ts";

/** What belongs to the running server, or to nobody any more. */
const left = new Set(["server.lock", "control.sock", "control.ws", "runs", "trash"]);

/** What is to be copied: a whole file as it is now, or the beginning of one that only grows. */
type Item =
  | { readonly path: string; readonly content: Buffer }
  | { readonly path: string; readonly bytes: number };

export interface BackupResult {
  readonly to: string;
  readonly files: number;
  readonly bytes: number;
}

/**
 * Copies a data directory as it is at this moment, also while its server goes on: logs only grow,
 * so their present length is enough to know. `to` is there when the copy is whole, or not at all.
 * `metadata` is what the server has in memory and may not have written yet.
 */
export async function backup(
  dataDir: string,
  to: string,
  about: {
    metadata: ReadonlyMap<string, ProjectMetadata>;
    progress: (bytes: number, of: number) => void;
  },
): Promise<BackupResult> {
  await refuseOccupied(to);
  if (!relative(dataDir, to).startsWith("..")) throw refusal(to, "it lies in the data directory");
  const items = [...itemsIn(dataDir, dataDir, about.metadata)];
  const total = items.reduce((sum, item) => sum + sizeOf(item), 0);
  const draft = `${to}.${crypto.randomUUID()}.partial`;
  let bytes = 0;
  try {
    for (const item of items) {
      // oxlint-disable-next-line no-await-in-loop -- a disk is no faster with many files at once
      await copy(item, { from: dataDir, to: draft });
      bytes += sizeOf(item);
      about.progress(bytes, total);
    }
    await syncFolders(draft);
    await rename(draft, to);
    await syncFolder(dirname(to));
  } catch (cause) {
    await rm(draft, { recursive: true, force: true });
    throw cause instanceof Fault ? cause : refusal(to, String(systemCode(cause) ?? cause));
  }
  return { to, files: items.length, bytes };
}

/** All of it in one go, so that it fits together. */
function* itemsIn(
  root: string,
  folder: string,
  metadata: ReadonlyMap<string, ProjectMetadata>,
): Generator<Item> {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const full = join(folder, entry.name);
    const path = relative(root, full);
    if (left.has(path) || entry.name.endsWith(".tmp")) continue;
    if (entry.isDirectory()) yield* itemsIn(root, full, metadata);
    else if (entry.isFile()) yield itemOf(path, full, metadata);
  }
}

function itemOf(path: string, full: string, metadata: ReadonlyMap<string, ProjectMetadata>): Item {
  const [top, project = "", name] = path.split(sep);
  const known = top === "projects" && name === "metadata.json" ? metadata.get(project) : undefined;
  if (known) return { path, content: Buffer.from(`${JSON.stringify(known, null, 2)}\n`) };
  // What is replaced as a whole is read as a whole; what grows is never changed before its end.
  if (path.endsWith(".jsonl")) return { path, bytes: statSync(full).size };
  return { path, content: readFileSync(full) };
}

const sizeOf = (item: Item): number => ("content" in item ? item.content.length : item.bytes);

async function copy(item: Item, { from, to }: { from: string; to: string }): Promise<void> {
  const target = join(to, item.path);
  await mkdir(dirname(target), { recursive: true, mode: 0o700 });
  const options = { mode: 0o600, flags: "wx", flush: true } as const;
  if ("bytes" in item && item.bytes > 0) {
    const source = createReadStream(join(from, item.path), { end: item.bytes - 1 });
    await pipeline(source, createWriteStream(target, options));
    return;
  }
  const file = await open(target, "wx", 0o600);
  try {
    await file.writeFile("content" in item ? item.content : "");
    await file.sync();
  } finally {
    await file.close();
  }
}

async function syncFolders(folder: string): Promise<void> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const folders = entries.filter((entry) => entry.isDirectory());
  await Promise.all(folders.map((entry) => syncFolder(join(entry.parentPath, entry.name))));
  await syncFolder(folder);
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

async function refuseOccupied(to: string): Promise<void> {
  const names = await readdir(to).catch((cause: unknown) => {
    if (systemCode(cause) === "ENOENT") return [];
    throw refusal(to, String(systemCode(cause)));
  });
  if (names.length > 0) throw refusal(to, "there is something in it already");
}

function refusal(to: string, reason: string): Fault {
  return new Fault("STORAGE_ERROR", `Cannot make the backup "${to}": ${reason}`, { reason });
}
