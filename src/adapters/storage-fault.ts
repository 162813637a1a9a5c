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

/** The `code` of an error of the system, such as `ENOSPC`; undefined for all others. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !("syscall" in error && "code" in error)) return undefined;
  return typeof error.code === "string" ? error.code : undefined;
}
