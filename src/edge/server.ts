import type { Server, ServerWebSocket } from "bun";
import type { Hono } from "hono";
import { networkOf } from "../access/address.ts";
import { Admission } from "../access/admission.ts";
import type { AuditEvent } from "../access/audit.ts";
import { localDevice } from "../access/devices.ts";
import { Login } from "../access/login.ts";
import { protocolVersion, subprotocol } from "../contract/messages.ts";
import type { Actor, ServerData, ServerType } from "../contract/messages.ts";
import type { Config } from "../contract/options.ts";
import type { Clock, Publisher, Telemetry } from "../core/ports.ts";
import { RateLimit } from "../core/rate-limit.ts";
import { version } from "../version.ts";
import { type ConnectedClients, maxStrangers } from "./clients.ts";
import { Connection } from "./connection.ts";
import type { HandlerContext } from "./handlers.ts";
import type { HttpEnv } from "./http.ts";
import { listenAt, type LocalDoor } from "./local-door.ts";
import { route } from "./route.ts";

interface SocketData {
  /** What the upgrade said: where the client is, and by which name it knows the server. */
  readonly address: string;
  readonly audience: string;
  /** Who it is, where that needs no login. */
  readonly known: Actor | null;
  connection?: Connection;
}

export interface ServeOptions extends Omit<HandlerContext, "connection" | "clients" | "audit"> {
  readonly clients: ConnectedClients;
  readonly config: Config;
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly http: Hono<HttpEnv>;
  /** Where the owner comes in, whom the local socket has looked at. */
  readonly door: LocalDoor;
}

/** Why an address cannot be listened on. */
const refusals: Readonly<Record<string, string>> = {
  EADDRINUSE: "the port is in use",
  EADDRNOTAVAIL: "this machine does not have the address",
  EACCES: "ports below 1024 are not for everybody",
};
/** Frames of whoever has not logged in need no more room than a key and a signature. */
const strangerBytes = 16 * 1024;
/** The socket's own limit; slow subscribers are served from the log long before. */
const backpressureBytes = 16 * 1024 * 1024;

/** Where clients come in: one listening socket, and everything that is connected to it. */
export class EdgeServer implements Publisher, AsyncDisposable {
  readonly #options: ServeOptions;
  readonly #server: Server<SocketData>;
  readonly #local: Server<SocketData>;
  readonly #admission: Admission;
  readonly #clients: ConnectedClients;
  /** Frames since the start. */
  readonly traffic = { sent: 0, received: 0 };
  /** By network. */
  readonly #arrivals = new Map<string, RateLimit>();
  readonly #liveness: Timer;

  constructor(options: ServeOptions) {
    this.#options = options;
    this.#clients = options.clients;
    this.#admission = new Admission({
      scheme: options.config.tlsEnabled ? "https" : "http",
      port: () => this.port,
      host: options.config.host,
      allowedHosts: options.config.allowedHosts ?? [],
      allowedOrigins: options.config.allowedOrigins ?? [],
      trustedProxies: options.config.trustedProxies ?? [],
      clock: options.clock,
    });
    const { config } = options;
    this.#server = this.#listen();
    this.#local = listenAt(options.door, welcome, this.#websocket());
    const everyMs = Math.min(1_000, config.pingInterval / 2, config.pongTimeout / 2);
    this.#liveness = setInterval(() => this.#tick(), everyMs);
  }

  get url(): URL {
    return this.#server.url;
  }

  get port(): number {
    return this.#server.port ?? 0;
  }

  publish(topic: string, type: ServerType, frame: string): void {
    for (const server of [this.#server, this.#local]) {
      server.publish(topic, frame, this.#options.config.wsCompression);
      this.#sent(type, server.subscriberCount(topic));
    }
  }

  /** Stops listening and closes every connection, in order and then by force. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#liveness);
    for (const connection of this.#clients) connection.close(1001);
    // What was sent last gets a moment to leave; a client that reads nothing does not get more.
    const deadline = performance.now() + 500;
    while (this.#clients.size > 0 && performance.now() < deadline)
      // oxlint-disable-next-line no-await-in-loop -- waits
      await Bun.sleep(10);
    await Promise.all([this.#server.stop(true), this.#local.stop(true)]);
  }

  #listen(): Server<SocketData> {
    const { config, access } = this.#options;
    const { host: hostname, port } = config;
    const { certificate } = access;
    // Bun takes this number although its types do not have it; as a text it throws.
    const minVersion = tlsVersions[config.tlsMinVersion];
    const tls = certificate && { cert: certificate.cert, key: certificate.key, minVersion };
    try {
      return Bun.serve({
        hostname,
        port,
        development: false,
        // Outside of development Bun lets several servers share a port, and each gets some clients.
        reusePort: false,
        maxRequestBodySize: 64 * 1024,
        ...(tls && { tls }),
        // As it was written: `fetch` is told a path only after its dots have been resolved.
        routes: { "/ws": (request, server) => this.#connect(request, server) },
        fetch: (request, server) => this.#fetch(request, server),
        websocket: this.#websocket(),
      });
    } catch (cause) {
      const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
      const reason = refusals[code] ?? String(cause);
      throw new Error(`Cannot listen on ${hostname}:${port}: ${reason}`, { cause });
    }
  }

  /** Where a request comes from, or why nobody is answered who asks like that. */
  #admit(request: Request, server: Server<SocketData>): string | Response {
    const stranger = this.#admission.refusal(request);
    if (!stranger) {
      const peer = server.requestIP(request)?.address ?? "";
      return this.#admission.address(request, peer);
    }
    const reason = stranger.status === 421 ? "host" : "origin";
    this.#options.telemetry.count("connections_refused_total", { reason });
    return stranger;
  }

  #fetch(request: Request, server: Server<SocketData>): Response | Promise<Response> {
    const address = this.#admit(request, server);
    if (address instanceof Response) return address;
    return this.#options.http.fetch(request, { address });
  }

  #connect(request: Request, server: Server<SocketData>): Response | undefined {
    const address = this.#admit(request, server);
    if (address instanceof Response) return address;
    const refusal = this.#refusal(request, address);
    if (refusal) return refusal;
    const audience = request.headers.get("host") ?? "";
    return upgrade(request, server, { address, audience, known: null });
  }

  #refusal(request: Request, address: string): Response | undefined {
    const { config, telemetry } = this.#options;
    const versions = protocols(request).filter((name) => name.startsWith("pocket-agent."));
    if (versions.length > 0 && !versions.includes(subprotocol)) {
      telemetry.count("connections_refused_total", { reason: "protocol" });
      return refuse(400, `Cannot speak any of those versions: served is ${subprotocol}`);
    }
    if (this.#arrival(address) > 0) {
      telemetry.count("connections_refused_total", { reason: "rate" });
      return refuse(429, "Cannot connect: too many connections in a short time");
    }
    // Strangers must not take the places of those who may come in; they have some of their own.
    const places = config.maxConnections + (config.authMode === "none" ? 0 : maxStrangers);
    if (this.#server.pendingWebSockets < places) return undefined;
    telemetry.count("connections_refused_total", { reason: "limit" });
    return refuse(503, "Cannot connect: limits.max_connections is reached");
  }

  #arrival(address: string): number {
    const { clock, config } = this.#options;
    const network = networkOf(address);
    const rate =
      this.#arrivals.get(network) ??
      new RateLimit(clock, config.connectionRate, config.connectionRate);
    this.#arrivals.set(network, rate);
    return rate.take();
  }

  #websocket() {
    const { config } = this.#options;
    return {
      data: {} as SocketData,
      maxPayloadLength: config.messageSize,
      backpressureLimit: backpressureBytes,
      closeOnBackpressureLimit: true,
      perMessageDeflate: config.wsCompression,
      // Liveness is ours: see Connection.tick.
      idleTimeout: 0,
      sendPings: false,
      open: (socket: ServerWebSocket<SocketData>) => this.#open(socket),
      message: (socket: ServerWebSocket<SocketData>, frame: string | Buffer) =>
        this.#message(socket.data.connection, frame),
      ping: ({ data }: ServerWebSocket<SocketData>) => data.connection?.heard(),
      pong: ({ data }: ServerWebSocket<SocketData>) => data.connection?.heard(),
      drain: ({ data }: ServerWebSocket<SocketData>) => data.connection?.drained(),
      close: ({ data }: ServerWebSocket<SocketData>, code: number) =>
        this.#closed(data.connection, code),
    };
  }

  #open(socket: ServerWebSocket<SocketData>): void {
    const { config, clock, telemetry } = this.#options;
    const sent = (type: ServerType, frames: number) => this.#sent(type, frames);
    const { address, known } = socket.data;
    const login = this.#login(socket.data);
    const behaviour = { config, clock, telemetry, sent };
    const connection = new Connection(socket, { ...behaviour, address, login, known });
    socket.data.connection = connection;
    if (known)
      this.#options.access.audit.record("login", { device: known.id, address, method: "socket" });
    telemetry.count("connections_total", {});
    telemetry.log("info", "connected", { connection: connection.id, address });
    connection.send("hello", this.#hello(login));
    this.#clients.add(connection);
    telemetry.gauge("connections_active", {}, this.#clients.size);
  }

  /** Nobody logs in where everybody is the owner, nor who was found to be the owner. */
  #login({ address, audience, known }: SocketData): Login | undefined {
    const { config, clock, access } = this.#options;
    if (config.authMode === "none" || known) return undefined;
    const { authentication, serverId: server } = access;
    const from = { address, audience, server, timeoutMs: config.authTimeout };
    return new Login(authentication, from, clock);
  }

  #hello(login: Login | undefined): ServerData<"hello"> {
    const { serverId: id } = this.#options.access;
    return {
      protocol: protocolVersion,
      server: { name: "pocket-agent-server", version, id },
      auth: login
        ? {
            required: true,
            methods: ["ssh", "token", "pair"],
            challenge: login.visitor.binding.challenge,
            expires_at: login.expiresAt,
          }
        : { required: false, methods: [] },
    };
  }

  #message(connection: Connection | undefined, frame: string | Buffer): void {
    if (!connection) return;
    connection.heard();
    this.traffic.received += 1;
    if (connection.scope === "none" && frame.length > strangerBytes) return connection.close(1009);
    const audit = (event: AuditEvent, fields: Readonly<Record<string, unknown>>) =>
      this.#options.access.audit.record(event, {
        device: connection.login
          ? (connection.login.deviceId ?? null)
          : (connection.actor?.id ?? null),
        address: connection.address,
        ...fields,
      });
    void route(frame, { ...this.#options, connection, audit });
  }

  #closed(connection: Connection | undefined, code: number): void {
    if (!connection) return;
    connection[Symbol.dispose]();
    this.#clients.delete(connection);
    const { telemetry } = this.#options;
    telemetry.gauge("connections_active", {}, this.#clients.size);
    telemetry.log("info", "disconnected", { connection: connection.id, code });
  }

  #sent(type: ServerType, frames: number): void {
    if (frames === 0) return;
    this.traffic.sent += frames;
    this.#options.telemetry.count("messages_total", { direction: "out", type }, frames);
  }

  #tick(): void {
    // A key that somebody has just added is announced without anybody having used it.
    this.#options.access.keys.refresh();
    for (const connection of this.#clients) connection.tick();
    for (const [network, rate] of this.#arrivals) if (rate.full) this.#arrivals.delete(network);
  }
}

/** As the numbers that TLS itself gives them. */
const tlsVersions = { "1.2": 0x0303, "1.3": 0x0304 } as const;

/** The owner of this machine. */
function welcome(request: Request, server: Server<SocketData>): Response | undefined {
  return upgrade(request, server, { address: "local", audience: "", known: localDevice });
}

function upgrade(
  request: Request,
  server: Server<SocketData>,
  data: SocketData,
): Response | undefined {
  // Left to itself, Bun selects the first that is offered; an empty one is none.
  const selected = protocols(request).includes(subprotocol) ? subprotocol : "";
  const headers = { "sec-websocket-protocol": selected };
  const upgraded = server.upgrade(request, { data, headers });
  return upgraded ? undefined : refuse(426, "Cannot serve this: expected a WebSocket upgrade");
}

function protocols(request: Request): string[] {
  const offered = request.headers.get("sec-websocket-protocol") ?? "";
  return offered.split(",").map((name) => name.trim());
}

function refuse(status: number, message: string): Response {
  const headers = { "x-content-type-options": "nosniff", "cache-control": "no-store" };
  return Response.json({ error: { code: "INVALID_MESSAGE", message } }, { status, headers });
}
