import { neighbourhoodOf, networkOf } from "../access/address.ts";
import type { Identity } from "../access/authentication.ts";
import { Fault } from "../contract/errors.ts";
import type { DeviceSummary } from "../contract/messages.ts";
import { lobby } from "../core/projects.ts";
import type { Connection } from "./connection.ts";
import type { Clients } from "./handlers.ts";
import type { SessionInfo } from "./http.ts";

/** Connections that have not logged in: of one address (of IPv6, one /64), and in all. */
const maxStrangersPerNetwork = 8;
export const maxStrangers = 32;
const maxPerDevice = 16;

/** Everybody who is connected, strangers that have not logged in yet among them. */
export class ConnectedClients implements Clients, Iterable<Connection> {
  readonly #maxConnections: number;
  /** The one that came first is first. */
  readonly #connections = new Set<Connection>();

  constructor(maxConnections: number) {
    this.#maxConnections = maxConnections;
  }

  get size(): number {
    return this.#connections.size;
  }

  [Symbol.iterator](): Iterator<Connection> {
    return this.#connections.values();
  }

  /** Takes a connection in. If there are too many strangers, one of them has to go. */
  add(connection: Connection): void {
    this.#connections.add(connection);
    if (!connection.login) return connection.enter(lobby);
    const strangers = [...this.#strangers()];
    const network = networkOf(connection.address);
    const own = strangers.filter(({ address }) => networkOf(address) === network);
    if (own.length > maxStrangersPerNetwork) return own[0]?.close(4401);
    if (strangers.length <= maxStrangers) return undefined;
    // The oldest of whoever takes most of the room, also by many addresses that are close together.
    const [oldest] = most(most(strangers, neighbourhoodOf), networkOf);
    return oldest?.close(4401);
  }

  delete(connection: Connection): void {
    this.#connections.delete(connection);
  }

  enter(connection: Connection, identity: Identity): void {
    const inside = [...this.#connections].filter(({ login }) => login?.done);
    const same = inside.filter(({ login }) => login?.deviceId === identity.deviceId);
    if (same.length >= maxPerDevice)
      throw new Fault(
        "RESOURCE_LIMIT",
        `Cannot log in: this device is connected ${same.length} times already`,
        { resource: "connections" },
      );
    if (inside.length >= this.#maxConnections)
      throw new Fault("RESOURCE_LIMIT", "Cannot log in: limits.max_connections is reached", {
        resource: "connections",
      });
    connection.login?.enter(identity);
    connection.enter(lobby);
  }

  has(deviceId: string): boolean {
    return [...this.#connections].some(({ login }) => login?.deviceId === deviceId);
  }

  /** Tells all devices of scope full that somebody new may come in. */
  announce(device: DeviceSummary): void {
    for (const connection of this.#connections)
      if (connection.scope === "full") connection.send("device_added", device);
  }

  /** Ends every connection of a device but one. */
  disconnect(deviceId: string, spare: Connection | undefined): void {
    for (const connection of this.#connections)
      if (connection !== spare && connection.login?.deviceId === deviceId) connection.close(4403);
  }

  /** Who is connected as whom. */
  sessions(): SessionInfo[] {
    return Array.from(this.#connections, (connection) => {
      const { id, address, actor, scope, connectedAt: connected_at, joined: projects } = connection;
      const device = actor && scope !== "none" ? { ...actor, scope } : null;
      return { connection: id, device, address, connected_at, projects: [...projects] };
    });
  }

  /** Those who have to make room for each other; whom the terminal is asked about has shown a code. */
  *#strangers(): Generator<Connection> {
    for (const connection of this.#connections) {
      const { login, closing } = connection;
      if (login && !login.done && !login.waiting && !closing) yield connection;
    }
  }
}

/** Of several connections those that have most in common. */
function most(
  connections: readonly Connection[],
  placeOf: (address: string) => string,
): readonly Connection[] {
  const groups = Map.groupBy(connections, ({ address }) => placeOf(address)).values();
  return [...groups].toSorted((a, b) => b.length - a.length)[0] ?? [];
}
