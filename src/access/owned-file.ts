import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";

/** More than this is none of the files that decide who may come in. */
const maxBytes = 4 * 1024 * 1024;

/** Bits of a file's mode that nobody but its owner may have. */
export const forbidden = { writing: 0o022, reading: 0o077, readingByAll: 0o027 } as const;

/**
 * The content of a file that only its owner can change, who must be this user or root; undefined
 * if there is none. Throws a sentence about what is wrong with it.
 */
export function readOwned(
  path: string,
  forbiddenMode: number = forbidden.writing,
): Buffer | undefined {
  const file = open(path);
  if (file === undefined) return undefined;
  try {
    const { uid, mode, size } = fstatSync(file);
    const problem = (text: string) => new Error(`Cannot use "${path}": ${text}`);
    if ((mode & constants.S_IFMT) !== constants.S_IFREG) throw problem("it is not a file");
    if (uid !== process.getuid?.() && uid !== 0) throw problem("it belongs to another user");
    if ((mode & forbiddenMode) !== 0) throw problem("others may change or read it; see chmod 600");
    if (size > maxBytes) throw problem("it is too large");
    return readFileSync(file);
  } finally {
    closeSync(file);
  }
}

function open(path: string): number | undefined {
  try {
    // Else a pipe by that name would hold up the whole server.
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
    if (code === "ENOENT") return undefined;
    throw new Error(`Cannot use "${path}": it cannot be opened (${String(code)})`, { cause });
  }
}
