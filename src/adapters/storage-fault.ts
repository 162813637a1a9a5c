import * as v from "valibot";
import { Fault } from "../contract/errors.ts";

const cases: Readonly<Record<string, string>> = {
  ENOSPC: "the disk is full",
  EDQUOT: "the disk quota is used up",
  EFBIG: "the file would become larger than the system allows",
  EIO: "the disk reported an error",
  EROFS: "the disk can only be read",
  EACCES: "the server may not write there",
  EMFILE: "too many files are open",
};

/**
 * What a client may know about a failed operation on the disk: what was tried and why, but no
 * paths. An error that is not the system's is a bug, and is thrown as it is.
 */
export function storageFault(attempt: string, error: unknown): Fault {
  const reason = systemCode(error);
  if (reason === undefined) throw error;
  const details = { reason };
  return new Fault("STORAGE_ERROR", `Cannot ${attempt}: ${cases[reason] ?? reason}`, details);
}

/** What an error of the system is about. */
const places = v.object({ path: v.optional(v.string()), dest: v.optional(v.string()) });

const forbidden = "this account may not use it";
/** Where what a client hears is not what the machine's owner can do something about. */
const dataDirCases: Readonly<Record<string, string>> = {
  ...cases,
  EACCES: forbidden,
  EPERM: forbidden,
  ENOTDIR: "a part of its path is not a directory",
  EEXIST: "something else is in its place",
};
const dataDirRemedies: Readonly<Record<string, string>> = {
  ENOSPC: "make room",
  EDQUOT: "make room",
  EROFS: "make its file system writable",
  EACCES: "give it to this account with chown",
  EPERM: "give it to this account with chown",
  ENOTDIR: "move away what is in the way",
  EEXIST: "move away what is in the way",
};

/**
 * What the person who starts a server should know when the system refuses it something in its data
 * directory: the cause, and what to do. Any other error stays as it is.
 */
export function dataDirFault(dataDir: string, error: unknown): unknown {
  const code = systemCode(error);
  if (!(error instanceof Error) || code === undefined) return error;
  const { dest, path = dest ?? dataDir } = v.parse(places, error);
  const place = dest ?? path;
  if (place !== dataDir && !place.startsWith(`${dataDir}/`)) return error;
  const { cause, remedy } = explain(code);
  const where = dest !== undefined || place === dataDir ? "" : ` (${place})`;
  return new Error(
    `Cannot use the data directory "${dataDir}": ${cause}${where}; ${remedy}, or name another with --data-dir`,
    { cause: error },
  );
}

/** What the code of an error means for a data directory, and what its owner can do. */
export function explain(code: string): { cause: string; remedy: string } {
  return { cause: dataDirCases[code] ?? code, remedy: dataDirRemedies[code] ?? "mend that" };
}

/** The `code` of an error of the system, such as `ENOSPC`; undefined for all others. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("syscall" in error && "code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}
