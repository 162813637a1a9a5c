import { realpathSync } from "node:fs";
import { join, resolve } from "node:path";
import { controlPath, findSocket } from "../adapters/control-path.ts";
import { configPaths } from "../config.ts";
import { KnownServers } from "../terminal/known-servers.ts";
import { localServer } from "../terminal/local-server.ts";
import { remoteServer } from "../terminal/remote-server.ts";
import type { Door } from "../terminal/wire.ts";
import { ask } from "./ask.ts";
import { type Call, UsageError } from "./command.ts";

/** The flags that name another server than this machine's. */
export const doorFlags = { url: "value", identity: "value", fingerprint: "value" } as const;

/** What `--help` says about them. */
export const doorDetails = [
  "--url wss://HOST:8443 goes to another machine's server, and PATH is one there: with the SSH key",
  "in the file --identity, else ssh-agent's first or ~/.ssh/id_ed25519, or with the token in the",
  "variable POCKET_AGENT_TOKEN. --fingerprint SHA256:... is what its key must be; else you are asked",
  "once, and the answer is kept.",
];

/** The way to the server that a command names, or to this machine's. */
export function doorOf({ flags, config, env }: Call): Door {
  const url = flags.get("url");
  if (url === undefined) {
    if (flags.has("identity") || flags.has("fingerprint"))
      throw new UsageError("Cannot use --identity or --fingerprint: they go with --url");
    return localServer(controlPath(config.dataDir, env), findSocket);
  }
  const [folder = ""] = configPaths([], env);
  const address = URL.canParse(url) ? new URL(url) : undefined;
  if (address?.protocol !== "wss:")
    throw new UsageError(
      `Cannot connect to "${url}": expected wss://HOST:PORT; without TLS nobody could tell which server answers`,
    );
  if (address.pathname === "/") address.pathname = "/ws";
  return remoteServer({
    url: address,
    identity: flags.get("identity"),
    fingerprint: flags.get("fingerprint"),
    token: env["POCKET_AGENT_TOKEN"] || undefined,
    home: env["HOME"] ?? "",
    known: new KnownServers(join(folder, "known_servers")),
    confirm: process.stdin.isTTY && process.stderr.isTTY ? ask : undefined,
  });
}

/** A directory on the server's machine: relative ones are this machine's. */
export function pathOn({ flags }: Call, path: string): string {
  if (!flags.has("url")) return resolve(path);
  if (path.startsWith("/")) return path;
  throw new UsageError("Cannot use that path: with --url it is one of the server's, and absolute");
}

/** The paths that a project's name may be, on this machine. */
export function pathsOf({ flags }: Call, named: string): string[] {
  if (flags.has("url")) return [named];
  const path = resolve(named);
  try {
    return [path, realpathSync(path)];
  } catch {
    // No directory: it is an id, a name, or was deleted.
    return [path];
  }
}
