import {
  accessSync,
  closeSync,
  constants,
  fstatSync,
  openSync,
  readdirSync,
  readSync,
  realpathSync,
  renameSync,
  statSync,
} from "node:fs";
import { join } from "node:path";
import { headerBytes, parseHeader, parseRecord } from "../adapters/log-record.ts";
import { readMetadata, writeMetadata } from "../adapters/project-store.ts";
import { systemCode } from "../adapters/storage-fault.ts";
import type { ProjectMetadata } from "../core/ports.ts";
import { rebuilt } from "./rebuild.ts";
import { fail, type Finding, ok, type Patient, warn } from "./finding.ts";

/** A last line is rarely longer; one that is counts as whole. */
const tailBytes = 1024 * 1024;

/** Every project's metadata and log, as far as the beginnings and ends of its files tell. */
export function checkHistory({ config, fix, running }: Patient): Finding[] {
  const folder = join(config.dataDir, "projects");
  const names = namesIn(folder);
  const found = names.flatMap((name) => {
    const closed = closedIn(join(folder, name));
    if (closed !== undefined)
      return [
        fail(
          `project ${name.slice(0, 8)}`,
          `${closed} cannot be read by this account`,
          "Open it with chmod u+rwX, or give it to this account with chown",
        ),
      ];
    return [
      ...checkMetadata(folder, name, fix && running === undefined),
      ...checkLog(join(folder, name, "logs"), name),
    ];
  });
  if (found.length > 0) return found;
  return [ok("projects", `${names.length}, metadata and logs are whole`)];
}

/** What of a project this account may not look at. */
function closedIn(project: string): string | undefined {
  const logs = join(project, "logs");
  const files = [
    ...namesIn(project).map((name) => join(project, name)),
    ...namesIn(logs).map((name) => join(logs, name)),
  ];
  return [project, ...files].find((path) => {
    try {
      const { X_OK, R_OK } = constants;
      accessSync(path, R_OK);
      if (statSync(path).isDirectory()) accessSync(path, X_OK);
      return false;
    } catch (error) {
      return systemCode(error) === "EACCES";
    }
  });
}

function checkMetadata(folder: string, name: string, fix: boolean): Finding[] {
  const metadata = readMetadata(folder, name);
  if (typeof metadata === "object") return checkDirectory(metadata);
  const what = `project ${name.slice(0, 8)}`;
  const recovered = rebuilt(join(folder, name, "logs"), name);
  if (!recovered)
    return [
      fail(what, `${metadata}, and its log does not say whose it is`, "Restore it from a backup"),
    ];
  if (!fix)
    return [
      fail(
        what,
        `${metadata}; its log says that it is ${recovered.path}`,
        "Stop the server, then: doctor --fix (the damaged file is kept)",
      ),
    ];
  const path = join(folder, name, "metadata.json");
  renameSync(path, `${path}.damaged-${Date.now()}`);
  writeMetadata(folder, recovered);
  return [ok(what, `its metadata was made again from its log: ${recovered.path}`)];
}

/** A project whose directory is elsewhere now keeps its history, and waits for it. */
function checkDirectory({ id, path }: ProjectMetadata): Finding[] {
  const what = `project ${id.slice(0, 8)}`;
  const remedy = `Put it back, or: projects delete ${id.slice(0, 8)}`;
  try {
    if (realpathSync.native(path) !== path)
      return [warn(what, `${path} is, or lies behind, a symbolic link now`, remedy)];
    if (!statSync(path).isDirectory()) return [warn(what, `${path} is no directory`, remedy)];
    accessSync(path, constants.R_OK | constants.X_OK);
    return [];
  } catch (error) {
    const reason = systemCode(error) === "ENOENT" ? "is not there" : "cannot be entered";
    return [warn(what, `its directory ${path} ${reason}`, remedy)];
  }
}

/** Numbers go on from file to file, and the last line is whole. */
function checkLog(folder: string, name: string): Finding[] {
  const what = `log of ${name.slice(0, 8)}`;
  const files = namesIn(folder).filter((file) => file.endsWith(".jsonl"));
  let expected: number | undefined;
  for (const [at, file] of files.toSorted().entries()) {
    const { first, last, torn } = endsOf(join(folder, file));
    if (torn && at === files.length - 1)
      return [warn(what, "its last line is torn", "Nothing: the next start cuts it and keeps it")];
    if (first === undefined || last === undefined) continue;
    if (expected !== undefined && first !== expected)
      return [
        warn(
          what,
          `numbers ${expected} to ${first - 1} are missing before ${file}`,
          "Restore that file from a backup, or leave it: clients skip the gap",
        ),
      ];
    expected = last + 1;
  }
  return [];
}

/** The numbers of a file's first and last record, and whether it ends within one. */
function endsOf(path: string): { first?: number; last?: number; torn: boolean } {
  const file = openSync(path, "r");
  try {
    const { size } = fstatSync(file);
    if (size === 0) return { torn: false };
    const head = Buffer.alloc(Math.min(headerBytes, size));
    readSync(file, head, 0, head.length, 0);
    const tail = Buffer.alloc(Math.min(tailBytes, size));
    readSync(file, tail, 0, tail.length, size - tail.length);
    const first = parseHeader(head)?.seq;
    const torn = tail.at(-1) !== 0x0a;
    const begin = tail.lastIndexOf(0x0a, tail.length - 2) + 1;
    const last = torn ? undefined : parseRecord(tail.subarray(begin))?.seq;
    return { torn, ...(first !== undefined && { first }), ...(last !== undefined && { last }) };
  } finally {
    closeSync(file);
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    // Nothing was ever put there; what cannot be read is the storage's check to report.
    return [];
  }
}
