import { createHash } from "node:crypto";
import { lstatSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

/** The longest path that every system takes for a socket, with room for its terminator. */
const maxBytes = 100;

/**
 * Where a server is spoken to from its own machine: in its data directory or, where that path is
 * too long for a socket, in a folder of this account's alone.
 */
export function controlPath(
  dataDir: string,
  env: Readonly<Record<string, string | undefined>>,
): string {
  const path = join(dataDir, "control.sock");
  if (Buffer.byteLength(path) <= maxBytes) return path;
  const folder = env["XDG_RUNTIME_DIR"] || join(tmpdir(), `pocket-agent-${process.getuid?.()}`);
  const name = createHash("sha256").update(dataDir).digest("hex").slice(0, 16);
  return join(folder, `pocket-agent-${name}.sock`);
}

/** Whether nobody but this account can get at what is in a folder, nor turn the link that it may be. */
export function isPrivate(folder: string): boolean {
  const user = process.getuid?.();
  const { uid, mode } = statSync(folder);
  const { uid: linkedBy } = lstatSync(folder);
  return uid === user && (mode & 0o077) === 0 && (linkedBy === user || linkedBy === 0);
}

/** Whether there is a local socket. Throws when it may be somebody else who listens there. */
export function findSocket(path: string): boolean {
  const socket = lstatSync(path, { throwIfNoEntry: false });
  if (!socket) return false;
  const folder = dirname(path);
  if (socket.uid === process.getuid?.() && isPrivate(folder)) return true;
  throw new Error(
    `Cannot speak to the server: others could have made the socket in "${folder}"; close it with chmod 700 or, if it is not yours, set XDG_RUNTIME_DIR or a shorter data.dir`,
  );
}
