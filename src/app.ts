import type { Access } from "./access/access.ts";
import { systemClock as clock } from "./adapters/clock.ts";
import { controlPath } from "./adapters/control-path.ts";
import { System } from "./adapters/system.ts";
import type { Config } from "./contract/options.ts";
import { type Data, openData, type Surroundings } from "./data.ts";
import { Control } from "./edge/control.ts";
import { health as readHealth } from "./edge/health.ts";
import { createHttp } from "./edge/http.ts";
import { localDoor } from "./edge/local-door.ts";
import { EdgeServer } from "./edge/server.ts";
import { version } from "./version.ts";

const statsIntervalMs = 10_000;

/** A running server. Disposing it ends every run, closes every log and every connection. */
export interface App extends AsyncDisposable {
  readonly url: URL;
  readonly access: Access;
  /** The local socket. */
  readonly controlPath: string;
  /** Tells the clients, takes no more work, and waits for the runs to end by themselves. */
  readonly drain: (reason: string) => Promise<void>;
  /** Ends every run by force; resolves when nothing of them is left. */
  readonly abandon: () => Promise<void>;
}

/** Builds the whole server, in order; disposal is the same list backwards. */
export async function start(config: Config, around: Surroundings): Promise<App> {
  await using starting = new AsyncDisposableStack();
  const { metrics } = around;
  // The core publishes through the server, which is bound last: when everything is restored.
  let edge: EdgeServer | undefined;
  const data = starting.use(
    await openData(config, around, {
      publish: (topic, type, frame) => edge?.publish(topic, type, frame),
    }),
  );
  const { access, clients, projects } = data;
  const system = starting.use(new System(data.disk));
  const begin = clock.monotonic();
  const uptime = () => Math.round((clock.monotonic() - begin) / 1000);
  const health = () => {
    const now = { connections: clients.size, uptime: uptime(), resources: system.resources };
    return readHealth({ ...data, version, unloaded: data.unloaded(), ...now });
  };
  const http = openHttp(data, health, around);
  const path = controlPath(config.dataDir, around.env);
  const door = localDoor(path);
  const server = starting.use(new EdgeServer({ ...data, health, http, door }));
  edge = server;
  starting.use(new Control({ ...data, path, port: server.port, door }));
  starting.use(everyTenSeconds(data, { server, system, uptime }));
  metrics.gauge("build_info", { version }, 1);
  access.audit.record("start", { version, pid: process.pid });
  starting.defer(() => access.audit.record("stop"));

  const running = starting.move();
  return {
    url: server.url,
    access,
    controlPath: path,
    drain: (reason) => projects.drain(reason, config.shutdownTimeout),
    abandon: () => projects.abandon(),
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/**
 * Tells every client how busy the server is, which browsers take as their sign of life, and what has
 * become of the projects' directories.
 */
function everyTenSeconds(
  { clients, projects, stats, telemetry }: Data,
  parts: { server: EdgeServer; system: System; uptime: () => number },
): Disposable {
  const { server, system } = parts;
  let before = 0;
  const ticker = setInterval(() => {
    const { sent, received } = server.traffic;
    const rate_per_sec = (sent + received - before) / (statsIntervalMs / 1000);
    before = sent + received;
    telemetry.gauge("event_loop_lag_seconds", {}, system.lagMs / 1000);
    telemetry.gauge("memory_bytes", {}, process.memoryUsage.rss());
    system.sample();
    projects.survey();
    projects.announce("server_stats", {
      connections: clients.size,
      projects: projects.size,
      executions: stats.snapshot(projects.queued),
      messages: { sent, received, rate_per_sec },
      uptime: parts.uptime(),
    });
  }, statsIntervalMs);
  return { [Symbol.dispose]: () => clearInterval(ticker) };
}

/** What is served besides the WebSocket. */
function openHttp(
  { config, access, clients, projects }: Data,
  health: () => ReturnType<typeof readHealth>,
  { metrics, log }: Surroundings,
) {
  return createHttp({
    health,
    projects,
    metrics: async () => ({ text: await metrics.text(), contentType: metrics.contentType }),
    sessions: () => clients.sessions(),
    authorize: (token, address) =>
      config.authMode === "none" ? "full" : access.authentication.bearer(token, address),
    log: (error, correlation_id) =>
      log("error", "an HTTP request failed for a reason of ours", { correlation_id, error }),
  });
}
