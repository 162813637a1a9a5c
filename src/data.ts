import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { type Access, openAccess, summary } from "./access/access.ts";
import type { Device } from "./access/devices.ts";
import type { LadderTiming } from "./adapters/claude/ladder.ts";
import { searchPath } from "./adapters/claude/search-path.ts";
import { claudeRunner } from "./adapters/claude/runner.ts";
import { sessionBook } from "./adapters/claude/sessions.ts";
import { systemClock as clock } from "./adapters/clock.ts";
import { admitFormat } from "./adapters/data-format.ts";
import { lockDataDir } from "./adapters/data-lock.ts";
import { refuseForeign } from "./adapters/data-owner.ts";
import { openDirectories } from "./adapters/directories.ts";
import { openDisk } from "./adapters/disk.ts";
import type { Metrics } from "./adapters/metrics.ts";
import { openProjectStore } from "./adapters/project-store.ts";
import { dataDirFault } from "./adapters/storage-fault.ts";
import type { Config } from "./contract/options.ts";
import type { AgentRunner, Directories, Disk, Publisher, Telemetry } from "./core/ports.ts";
import { Projects } from "./core/projects.ts";
import { ExecutionStats } from "./core/stats.ts";
import { ConnectedClients } from "./edge/clients.ts";
import type { Revoke } from "./edge/handlers.ts";
import { Courier } from "./notifications/courier.ts";
import { WebPush } from "./notifications/web-push.ts";

const agentLineBytes = 16 * 1024 * 1024;

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
  /** What starts agents; the CLI of this machine, if left out. */
  readonly runner?: AgentRunner;
}

/** Everything that works on a data directory; whether anybody is listened to is another matter. */
export interface Data extends AsyncDisposable {
  readonly config: Config;
  readonly clock: typeof clock;
  readonly log: Telemetry["log"];
  readonly telemetry: Telemetry;
  readonly disk: Disk;
  readonly access: Access;
  readonly clients: ConnectedClients;
  readonly webPush: WebPush;
  readonly runner: AgentRunner;
  readonly directories: Directories;
  readonly stats: ExecutionStats;
  readonly projects: Projects;
  /** Why projects could not be loaded. */
  readonly unloaded: () => readonly string[];
  readonly connected: (deviceId: string) => boolean;
  readonly revoke: Revoke;
}

/** Claims a data directory and brings back what is in it. What the core says goes to `publisher`. */
export async function openData(
  config: Config,
  around: Surroundings,
  publisher: Publisher,
): Promise<Data> {
  try {
    return await open(config, around, publisher);
  } catch (error) {
    throw dataDirFault(config.dataDir, error);
  }
}

async function open(config: Config, around: Surroundings, publisher: Publisher): Promise<Data> {
  await using opening = new AsyncDisposableStack();
  const { log } = around;
  const telemetry = telemetryOf(around);
  opening.use(lockDataDir(config.dataDir));
  refuseForeign(config.dataDir);
  admitFormat(config.dataDir);
  const disk = openDisk(config.dataDir);
  const clients = new ConnectedClients(config.maxConnections);
  const announce = (device: Device) => clients.announce(summary(device, false));
  const access = opening.use(await openAccess(config, { clock, log, announce }));
  const store = openStore(config, telemetry);
  const ownPaths = ownPathsOf(config, around.configPaths);
  const runner =
    around.runner ?? opening.use(await startRunner({ config, around, telemetry, ownPaths }));
  const directories = openDirectories({
    ownFolders: ownPaths,
    roots: config.projectRoots,
    environment: around.env,
  });
  const stats = new ExecutionStats(telemetry);
  const sessions = sessionBook(around.env);
  const admits = (id: string) => config.authMode === "none" || access.authentication.admits(id);
  const parts = { config, clock, telemetry, runner, directories, disk, stats };
  const webPush = new WebPush({ config, devices: access.devices, admits });
  const notifications = opening.use(new Courier({ ...parts, webPush }));
  const projects = new Projects({ ...parts, sessions, store, admits, notifications }, publisher);
  opening.defer(() => projects.close());
  const opened = opening.move();
  return {
    ...parts,
    log,
    access,
    clients,
    webPush,
    projects,
    unloaded: () => [...store.problems, ...projects.problems],
    connected: (deviceId) => clients.has(deviceId),
    revoke: revocation({ access, clients, projects }),
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
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

async function startRunner(parts: {
  config: Config;
  around: Surroundings;
  telemetry: Telemetry;
  ownPaths: readonly string[];
}) {
  const { config, around, telemetry, ownPaths } = parts;
  const { env, umask, ladder } = around;
  const { path, shell } = await searchPath(config.claudeBinary, env);
  if (shell !== null) telemetry.log("info", "the login shell has a longer PATH", { shell, path });
  const recordsDir = join(config.dataDir, "runs");
  mkdirSync(recordsDir, { recursive: true, mode: 0o700 });
  return claudeRunner({
    binary: config.claudeBinary,
    recordsDir,
    serverPaths: ownPaths,
    extraEnv: config.claudeEnv ?? [],
    sshAgent: config.claudeSshAgent,
    lineBytes: agentLineBytes,
    environment: { ...env, PATH: path },
    userUmask: umask,
    ...(ladder && { ladder }),
    telemetry,
  });
}
