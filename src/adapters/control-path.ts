import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";

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
