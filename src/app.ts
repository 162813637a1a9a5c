import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { type Access, openAccess, summary } from "./access/access.ts";
import type { Device } from "./access/devices.ts";
import type { LadderTiming } from "./adapters/claude/ladder.ts";
import { claudeRunner } from "./adapters/claude/runner.ts";
import { sessionBook } from "./adapters/claude/sessions.ts";
import { systemClock as clock } from "./adapters/clock.ts";
import { controlPath } from "./adapters/control-path.ts";
import { lockDataDir } from "./adapters/data-lock.ts";
import { openDirectories } from "./adapters/directories.ts";
import { openDisk } from "./adapters/disk.ts";
import type { Metrics } from "./adapters/metrics.ts";
import { openProjectStore } from "./adapters/project-store.ts";
import { System } from "./adapters/system.ts";
import type { Config } from "./contract/options.ts";
import type { Publisher, Telemetry } from "./core/ports.ts";
import { Projects } from "./core/projects.ts";
import { ExecutionStats } from "./core/stats.ts";
import { health as readHealth } from "./edge/health.ts";
import { createHttp, type HttpDeps } from "./edge/http.ts";
import { ConnectedClients } from "./edge/clients.ts";
import { Control } from "./edge/control.ts";
import type { Revoke } from "./edge/handlers.ts";
import { EdgeServer } from "./edge/server.ts";
import { version } from "./version.ts";

const agentLineBytes = 16 * 1024 * 1024;
const statsIntervalMs = 10_000;

export interface Surroundings {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The person's own umask, which the agent's files are made with. */
  readonly umask: number;
  readonly metrics: Metrics;
  readonly log: Telemetry["log"];
  /** Where settings are read from; no project and no agent gets at it. */
  readonly configPaths: readonly string[];
  /** How long each step of ending an agent waits; what suits the CLI, if left out. */
  readonly ladder?: Partial<LadderTiming>;
}

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
  const { metrics, log } = around;
  const telemetry = telemetryOf(around);
  starting.use(lockDataDir(config.dataDir));
  const disk = openDisk(config.dataDir);
  const system = starting.use(new System(disk));
  const clients = new ConnectedClients(config.maxConnections);
  const announce = (device: Device) => clients.announce(summary(device, false));
  const access = starting.use(await openAccess(config, { clock, log, announce }));
  const store = openStore(config, telemetry);
  const ownPaths = ownPathsOf(config, around.configPaths);
  const runner = starting.use(startRunner({ config, around, telemetry, ownPaths }));
  const directories = openDirectories({
    ownFolders: ownPaths,
    roots: config.projectRoots,
    environment: around.env,
  });
  const stats = new ExecutionStats(telemetry);
  // The core publishes through the server, which is bound last: when everything is restored.
  let edge: EdgeServer | undefined;
  const publisher: Publisher = {
    publish: (topic, type, frame) => edge?.publish(topic, type, frame),
  };
  const sessions = sessionBook(around.env);
  const admits = (id: string) => config.authMode === "none" || access.authentication.admits(id);
  const core = { config, runner, sessions, clock, telemetry, store, directories, disk, stats };
  const projects = new Projects({ ...core, admits }, publisher);
  starting.defer(() => projects.close());
  const begin = clock.monotonic();
  const uptime = () => Math.round((clock.monotonic() - begin) / 1000);
  const health = () => {
    const now = { connections: clients.size, uptime: uptime(), resources: system.resources };
    const parts = { config, version, projects, runner, disk, unloaded: store.problems };
    return readHealth({ ...parts, ...now });
  };
  const http = openHttp({ config, around, access, clients, projects, health });
  const revoke = revocation({ access, clients, projects });
  const inside = { access, clients, projects, directories, health, revoke };
  const server = starting.use(new EdgeServer({ config, clock, telemetry, http, ...inside }));
  edge = server;
  const { port } = server;
  const path = controlPath(config.dataDir, around.env);
  starting.use(new Control({ config, clock, log, access, clients, revoke, path, port }));
  starting.use(everyTenSeconds({ server, clients, projects, stats, system, telemetry, uptime }));
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

function telemetryOf({ metrics, log }: Surroundings): Telemetry {
  return {
    count: (metric, labels, by) => metrics.count(metric, labels, by),
    gauge: (metric, labels, value) => metrics.gauge(metric, labels, value),
    observe: (metric, labels, value) => metrics.observe(metric, labels, value),
    log,
  };
}

/** Tells every client how busy the server is; browsers take it as their sign of life. */
function everyTenSeconds(parts: {
  server: EdgeServer;
  clients: ConnectedClients;
  projects: Projects;
  stats: ExecutionStats;
  system: System;
  telemetry: Telemetry;
  uptime: () => number;
}): Disposable {
  const { server, clients, projects, stats, system, telemetry } = parts;
  let before = 0;
  const ticker = setInterval(() => {
    const { sent, received } = server.traffic;
    const rate_per_sec = (sent + received - before) / (statsIntervalMs / 1000);
    before = sent + received;
    telemetry.gauge("event_loop_lag_seconds", {}, system.lagMs / 1000);
    telemetry.gauge("memory_bytes", {}, process.memoryUsage.rss());
    system.sample();
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
  parts: Pick<HttpDeps, "health" | "projects"> & {
    config: Config;
    around: Surroundings;
    access: Access;
    clients: ConnectedClients;
  },
) {
  const { config, around, access, clients, ...rest } = parts;
  const { metrics, log } = around;
  return createHttp({
    ...rest,
    metrics: async () => ({ text: await metrics.text(), contentType: metrics.contentType }),
    sessions: () => clients.sessions(),
    authorize: (token, address) =>
      config.authMode === "none" ? "full" : access.authentication.bearer(token, address),
    log: (error, correlation_id) =>
      log("error", "an HTTP request failed for a reason of ours", { correlation_id, error }),
  });
}

/** Shuts a device out of everything at once, and for good. */
function revocation(parts: {
  access: Access;
  clients: ConnectedClients;
  projects: Projects;
}): Revoke {
  const { access, clients, projects } = parts;
  return async (id, { keepRuns, spare }) => {
    const saved = [access.devices.revoke(id), access.tokens.drop(id)];
    clients.disconnect(id, spare);
    access.audit.record("device_revoked", { revoked: id, keep_runs: keepRuns });
    await Promise.all([...saved, projects.forsake(id, keepRuns)]);
  };
}

/** Files and folders that decide who may come in, and what the agent is started with. */
function ownPathsOf(config: Config, configPaths: readonly string[]): string[] {
  const { dataDir, tlsCert, tlsKey, authorizedKeys } = config;
  const named = [tlsCert, tlsKey, ...(authorizedKeys ?? [])].filter((path) => path !== null);
  return [dataDir, ...configPaths, ...named];
}

function openStore(config: Config, telemetry: Telemetry) {
  const { dataDir, logRotationSize: bytes, logRotationCount: count, logKeepDays } = config;
  return openProjectStore({
    dataDir,
    rotation: { bytes, count, keepDays: logKeepDays },
    telemetry,
  });
}

function startRunner(parts: {
  config: Config;
  around: Surroundings;
  telemetry: Telemetry;
  ownPaths: readonly string[];
}) {
  const { config, around, telemetry, ownPaths } = parts;
  const { env, umask, ladder } = around;
  const recordsDir = join(config.dataDir, "runs");
  mkdirSync(recordsDir, { recursive: true, mode: 0o700 });
  return claudeRunner({
    binary: config.claudeBinary,
    recordsDir,
    serverPaths: ownPaths,
    extraEnv: config.claudeEnv ?? [],
    sshAgent: config.claudeSshAgent,
    lineBytes: agentLineBytes,
    environment: env,
    userUmask: umask,
    ...(ladder && { ladder }),
    telemetry,
  });
}
