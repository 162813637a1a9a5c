import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { LadderTiming } from "./adapters/claude/ladder.ts";
import { claudeRunner } from "./adapters/claude/runner.ts";
import { sessionBook } from "./adapters/claude/sessions.ts";
import { systemClock as clock } from "./adapters/clock.ts";
import { lockDataDir } from "./adapters/data-lock.ts";
import { openDirectories } from "./adapters/directories.ts";
import { openDisk } from "./adapters/disk.ts";
import type { Metrics } from "./adapters/metrics.ts";
import { openProjectStore } from "./adapters/project-store.ts";
import { serverId } from "./adapters/server-key.ts";
import { System } from "./adapters/system.ts";
import { protocolVersion, type ServerData } from "./contract/messages.ts";
import type { Config } from "./contract/options.ts";
import type { Publisher, Telemetry } from "./core/ports.ts";
import { Projects } from "./core/projects.ts";
import { ExecutionStats } from "./core/stats.ts";
import { health as readHealth } from "./edge/health.ts";
import { createHttp } from "./edge/http.ts";
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
  /** How long each step of ending an agent waits; what suits the CLI, if left out. */
  readonly ladder?: Partial<LadderTiming>;
}

/** A running server. Disposing it ends every run, closes every log and every connection. */
export interface App extends AsyncDisposable {
  readonly url: URL;
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
  const store = openStore(config, telemetry);
  const runner = starting.use(startRunner(config, around, telemetry));
  const directories = openDirectories({
    ownFolders: [config.dataDir],
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
  const core = { config, runner, sessions, clock, telemetry, store, directories, disk, stats };
  const projects = new Projects(core, publisher);
  starting.defer(() => projects.close());
  const begin = clock.monotonic();
  const uptime = () => Math.round((clock.monotonic() - begin) / 1000);
  const health = () =>
    readHealth({
      config,
      version,
      projects,
      runner,
      disk,
      connections: edge?.connections ?? 0,
      uptime: uptime(),
      resources: system.resources,
      unloaded: store.problems,
    });
  const http = createHttp({
    health,
    metrics: async () => ({ text: await metrics.text(), contentType: metrics.contentType }),
    log: (error) => log("error", "an HTTP request failed for a reason of ours", { error }),
  });
  const id = serverId(join(config.dataDir, "certs"));
  const server = starting.use(
    new EdgeServer({ config, clock, telemetry, projects, health, hello: hello(id), http }),
  );
  edge = server;
  starting.use(everyTenSeconds({ server, projects, stats, system, telemetry, uptime }));
  metrics.gauge("build_info", { version }, 1);

  const running = starting.move();
  return {
    url: server.url,
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
  projects: Projects;
  stats: ExecutionStats;
  system: System;
  telemetry: Telemetry;
  uptime: () => number;
}): Disposable {
  const { server, projects, stats, system, telemetry } = parts;
  let before = 0;
  const ticker = setInterval(() => {
    const { sent, received } = server.traffic;
    const rate_per_sec = (sent + received - before) / (statsIntervalMs / 1000);
    before = sent + received;
    telemetry.gauge("event_loop_lag_seconds", {}, system.lagMs / 1000);
    telemetry.gauge("memory_bytes", {}, process.memoryUsage.rss());
    system.sample();
    projects.announce("server_stats", {
      connections: server.connections,
      projects: projects.size,
      executions: stats.snapshot(projects.queued),
      messages: { sent, received, rate_per_sec },
      uptime: parts.uptime(),
    });
  }, statsIntervalMs);
  return { [Symbol.dispose]: () => clearInterval(ticker) };
}

function hello(id: string): ServerData<"hello"> {
  return {
    protocol: protocolVersion,
    server: { name: "pocket-agent-server", version, id },
    auth: { required: false, methods: [] },
  };
}

function openStore(config: Config, telemetry: Telemetry) {
  const { dataDir, logRotationSize: bytes, logRotationCount: count, logKeepDays } = config;
  return openProjectStore({
    dataDir,
    rotation: { bytes, count, keepDays: logKeepDays },
    telemetry,
  });
}

function startRunner(config: Config, around: Surroundings, telemetry: Telemetry) {
  const { env, umask, ladder } = around;
  const recordsDir = join(config.dataDir, "runs");
  mkdirSync(recordsDir, { recursive: true, mode: 0o700 });
  return claudeRunner({
    binary: config.claudeBinary,
    recordsDir,
    serverPaths: [config.dataDir],
    extraEnv: config.claudeEnv ?? [],
    sshAgent: config.claudeSshAgent,
    lineBytes: agentLineBytes,
    environment: env,
    userUmask: umask,
    ...(ladder && { ladder }),
    telemetry,
  });
}
