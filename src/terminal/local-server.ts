import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Door, opened, Unreachable } from "./wire.ts";

/** Nobody is asked who they are: the local socket has looked. */
const nobody: AsyncIterable<never> = {
  async *[Symbol.asyncIterator]() {
    // Nothing to show.
  },
};

/**
 * The server of this machine, through its local socket. `find` says whether there is one, and throws
 * when it may be somebody else's.
 */
export function localServer(path: string, find: (path: string) => boolean): Door {
  return {
    async connect() {
      if (!find(path)) throw new Unreachable(absence);
      using plain = plainPath(path);
      try {
        return await opened(new WebSocket(`ws+unix://${plain.path}:/ws`), "the local server");
      } catch (cause) {
        const why = cause instanceof Error ? cause.message : String(cause);
        throw new Unreachable(
          `Cannot reach the server of this data, whose socket is there: ${why}`,
          {
            cause,
          },
        );
      }
    },
    proofs: () => nobody,
    admitted: () => undefined,
  };
}

const absence =
  'Cannot reach a server: none is running on this data; start it with "serve" or "service install", or name another with --url';

/** Bun's client takes only paths that a URL would not write differently, and no blanks among them. */
function plainPath(path: string): Disposable & { readonly path: string } {
  if (/^[\w./-]+$/.test(path)) return { path, [Symbol.dispose]: () => undefined };
  const folder = mkdtempSync(join(tmpdir(), "pocket-agent-"));
  const link = join(folder, "socket");
  symlinkSync(path, link);
  return {
    path: link,
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  };
}
