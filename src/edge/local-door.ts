import type { Server, WebSocketHandler } from "bun";
import { chmodSync, mkdirSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { isPrivate } from "../adapters/control-path.ts";

/** Where callers of the local socket who were looked at become clients; see `Tunnel`. */
export interface LocalDoor {
  /** A socket behind the local socket. */
  readonly path: string;
  /** What shows that somebody comes through the local socket. Nobody else can know it. */
  readonly ticket: string;
}

export const ticketHeader = "x-pocket-agent-ticket";

/** The door that belongs to a local socket. */
export function localDoor(controlPath: string): LocalDoor {
  return { path: controlPath.replace(/\.sock$/, ".ws"), ticket: crypto.randomUUID() };
}

/** Listens there, and hands on who has the ticket. The data directory is locked: what is there is left from a crash. */
export function listenAt<Data>(
  { path, ticket }: LocalDoor,
  upgrade: (request: Request, server: Server<Data>) => Response | undefined,
  websocket: WebSocketHandler<Data>,
): Server<Data> {
  prepareFolder(dirname(path));
  rmSync(path, { force: true });
  const server = Bun.serve<Data>({
    unix: path,
    development: false,
    maxRequestBodySize: 64 * 1024,
    fetch(request, self) {
      if (request.headers.get(ticketHeader) !== ticket) return new Response(null, { status: 403 });
      if (new URL(request.url).pathname !== "/ws") return new Response(null, { status: 404 });
      return upgrade(request, self);
    },
    websocket,
  });
  chmodSync(path, 0o600);
  return server;
}

/** A folder of the runtime directory's may have to be made; others' are refused. */
export function prepareFolder(folder: string): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  if (!isPrivate(folder))
    throw new Error(`Cannot make the local socket: "${folder}" is not for this account alone`);
}
