import type { Server, ServerWebSocket } from "bun";
import type { Hono } from "hono";
import { subprotocol } from "../contract/messages.ts";
import type { ServerData, ServerType } from "../contract/messages.ts";
import type { Config } from "../contract/options.ts";
import type { Clock, Publisher, Telemetry } from "../core/ports.ts";
import { lobby, type Projects } from "../core/projects.ts";
import { Admission } from "../access/admission.ts";
import { RateLimit } from "../core/rate-limit.ts";
import { Connection } from "./connection.ts";
import type { HandlerContext } from "./handlers.ts";
import { route } from "./route.ts";

interface SocketData {
  connection?: Connection;
}

export interface ServeOptions {
  readonly config: Config;
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly hello: ServerData<"hello">;
  readonly projects: Projects;
  readonly health: HandlerContext["health"];
  readonly http: Hono;
}

/** Why an address cannot be listened on. */
const refusals: Readonly<Record<string, string>> = {
  EADDRINUSE: "the port is in use",
  EADDRNOTAVAIL: "this machine does not have the address",
  EACCES: "ports below 1024 are not for everybody",
};
/** The socket's own limit; slow subscribers are served from the log long before. */
const backpressureBytes = 16 * 1024 * 1024;

/** Where clients come in: one listening socket, and everything that is connected to it. */
export class EdgeServer implements Publisher, AsyncDisposable {
  readonly #options: ServeOptions;
  readonly #server: Server<SocketData>;
  readonly #admission: Admission;
  readonly #connections = new Set<Connection>();
  /** Frames since the start. */
  readonly traffic = { sent: 0, received: 0 };
  readonly #arrivals = new Map<string, RateLimit>();
  readonly #liveness: Timer;

  constructor(options: ServeOptions) {
    this.#options = options;
    this.#admission = new Admission({
      scheme: "http",
      port: () => this.#server.port ?? 0,
      host: options.config.host,
      allowedHosts: options.config.allowedHosts ?? [],
      allowedOrigins: options.config.allowedOrigins ?? [],
      trustedProxies: options.config.trustedProxies ?? [],
      clock: options.clock,
    });
    const { config } = options;
    this.#server = this.#listen();
    const everyMs = Math.min(1_000, config.pingInterval / 2, config.pongTimeout / 2);
    this.#liveness = setInterval(() => this.#tick(), everyMs);
  }

  get url(): URL {
    return this.#server.url;
  }

  get connections(): number {
    return this.#connections.size;
  }

  publish(topic: string, type: ServerType, frame: string): void {
    this.#server.publish(topic, frame, this.#options.config.wsCompression);
    this.#sent(type, this.#server.subscriberCount(topic));
  }

  /** Stops listening and closes every connection, in order and then by force. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#liveness);
    for (const connection of this.#connections) connection.close(1001);
    // What was sent last gets a moment to leave; a client that reads nothing does not get more.
    const deadline = performance.now() + 500;
    while (this.#connections.size > 0 && performance.now() < deadline)
      // oxlint-disable-next-line no-await-in-loop -- waits
      await Bun.sleep(10);
    await this.#server.stop(true);
  }

  #listen(): Server<SocketData> {
    const { host: hostname, port } = this.#options.config;
    try {
      return Bun.serve({
        hostname,
        port,
        development: false,
        // Outside of development Bun lets several servers share a port, and each gets some clients.
        reusePort: false,
        maxRequestBodySize: 64 * 1024,
        fetch: (request, server) => this.#fetch(request, server),
        websocket: this.#websocket(),
      });
    } catch (cause) {
      const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
      const reason = refusals[code] ?? String(cause);
      throw new Error(`Cannot listen on ${hostname}:${port}: ${reason}`, { cause });
    }
  }

  #fetch(request: Request, server: Server<SocketData>): Response | Promise<Response> | undefined {
    const stranger = this.#admission.refusal(request);
    if (stranger) {
      const reason = stranger.status === 421 ? "host" : "origin";
      this.#options.telemetry.count("connections_refused_total", { reason });
      return stranger;
    }
    if (new URL(request.url).pathname !== "/ws") return this.#options.http.fetch(request);
    const refusal = this.#refusal(request, server);
    if (refusal) return refusal;
    const offered = protocols(request);
    const headers = offered.includes(subprotocol)
      ? { "sec-websocket-protocol": subprotocol }
      : undefined;
    const upgraded = server.upgrade(request, { data: {}, ...(headers && { headers }) });
    return upgraded ? undefined : refuse(426, "Cannot serve this: expected a WebSocket upgrade");
  }

  #refusal(request: Request, server: Server<SocketData>): Response | undefined {
    const { config, telemetry } = this.#options;
    const versions = protocols(request).filter((name) => name.startsWith("pocket-agent."));
    if (versions.length > 0 && !versions.includes(subprotocol)) {
      telemetry.count("connections_refused_total", { reason: "protocol" });
      return refuse(400, `Cannot speak any of those versions: served is ${subprotocol}`);
    }
    const peer = server.requestIP(request)?.address ?? "";
    if (this.#arrival(this.#admission.address(request, peer)) > 0) {
      telemetry.count("connections_refused_total", { reason: "rate" });
      return refuse(429, "Cannot connect: too many connections in a short time");
    }
    if (server.pendingWebSockets < config.maxConnections) return undefined;
    telemetry.count("connections_refused_total", { reason: "limit" });
    return refuse(503, "Cannot connect: limits.max_connections is reached");
  }

  #arrival(address: string): number {
    const { clock, config } = this.#options;
    const rate =
      this.#arrivals.get(address) ??
      new RateLimit(clock, config.connectionRate, config.connectionRate);
    this.#arrivals.set(address, rate);
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
    const { config, clock, telemetry, hello } = this.#options;
    const sent = (type: ServerType, frames: number) => this.#sent(type, frames);
    const connection = new Connection(socket, { config, clock, telemetry, sent });
    socket.data.connection = connection;
    this.#connections.add(connection);
    telemetry.count("connections_total", {});
    telemetry.gauge("connections_active", {}, this.#connections.size);
    telemetry.log("info", "connected", { connection: connection.id, address: connection.address });
    connection.send("hello", hello);
    socket.subscribe(lobby);
  }

  #message(connection: Connection | undefined, frame: string | Buffer): void {
    if (!connection) return;
    connection.heard();
    this.traffic.received += 1;
    void route(frame, { ...this.#options, connection });
  }

  #closed(connection: Connection | undefined, code: number): void {
    if (!connection) return;
    connection[Symbol.dispose]();
    this.#connections.delete(connection);
    const { telemetry } = this.#options;
    telemetry.gauge("connections_active", {}, this.#connections.size);
    telemetry.log("info", "disconnected", { connection: connection.id, code });
  }

  #sent(type: ServerType, frames: number): void {
    if (frames === 0) return;
    this.traffic.sent += frames;
    this.#options.telemetry.count("messages_total", { direction: "out", type }, frames);
  }

  #tick(): void {
    for (const connection of this.#connections) connection.tick();
    for (const [address, rate] of this.#arrivals) if (rate.full) this.#arrivals.delete(address);
  }
}

function protocols(request: Request): string[] {
  const offered = request.headers.get("sec-websocket-protocol") ?? "";
  return offered.split(",").map((name) => name.trim());
}

function refuse(status: number, message: string): Response {
  const headers = { "x-content-type-options": "nosniff", "cache-control": "no-store" };
  return Response.json({ error: { code: "INVALID_MESSAGE", message } }, { status, headers });
}
