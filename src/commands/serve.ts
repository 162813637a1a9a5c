import { createLogger } from "../adapters/logger.ts";
import { Metrics } from "../adapters/metrics.ts";
import { Notifier } from "../adapters/notify.ts";
import { forbidInspection } from "../adapters/peer.ts";
import { start } from "../app.ts";
import { configPaths, isLoopback, loadConfig } from "../config.ts";
import type { Config } from "../contract/options.ts";
import type { Telemetry } from "../core/ports.ts";
import { version } from "../version.ts";
import type { Command, Environment } from "./command.ts";
import { ControlClient } from "./control-client.ts";
import { endingText, terminalDialogue } from "./pair.ts";

/** How long the agents get to be killed when a person does not want to wait. */
const abandonMs = 1_000;

export const serve: Command = {
  about: "Run the server (what happens without a command)",
  usage: ["[serve]"],
  details: ["Runs until SIGTERM or SIGINT; a second signal does not wait for the runs."],
  run,
};

/**
 * Runs the server until it is told to stop, and gives the process's exit code. The first signal
 * lets the runs end; a second one kills them, and what is left is swept at the next start.
 */
async function run(argv: readonly string[], env: Environment): Promise<number> {
  const config = loadConfig(argv, env);
  const umask = process.umask(0o077);
  const log = createLogger(config, env);
  const metrics = new Metrics();
  for (const warning of warnings(config)) log("warn", warning);
  if (process.platform === "linux" && !forbidInspection())
    log("warn", "other programs of this account can read the server's memory: prctl failed");
  for (const kind of ["uncaughtException", "unhandledRejection"] as const)
    process.on(kind, (error: unknown) => {
      metrics.count("unhandled_errors_total", {});
      log("error", "nobody caught this error", { kind, error });
    });
  const { promise: signalled, resolve } = Promise.withResolvers<string>();
  const { promise: impatient, resolve: again } = Promise.withResolvers<void>();
  let signals = 0;
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const)
    process.on(signal, () => {
      signals += 1;
      log("info", "signal", { signal });
      if (signals === 1) resolve(signal);
      else again();
    });

  using manager = new Notifier(env);
  const app = await start(config, {
    env,
    umask,
    metrics,
    log,
    configPaths: configPaths(argv, env),
  });
  log("info", "listening", {
    url: app.url.href,
    version,
    data_dir: config.dataDir,
    pid: process.pid,
  });
  if (app.access.authentication.isVacant && config.authMode !== "none")
    void welcome(app.controlPath, log);
  manager.ready(`Listening on ${app.url.href}`);
  const reason = await signalled;
  manager.stopping(reason);
  const stopped = app.drain(reason).then(() => app[Symbol.asyncDispose]());
  const abandoned = impatient.then(() => Promise.race([app.abandon(), Bun.sleep(abandonMs)]));
  const code = await Promise.race([stopped.then(() => 0), abandoned.then(() => 1)]);
  log("info", "stopped", { code });
  return code;
}

/** Nobody may come in yet: whoever sits at the terminal can let the first device in. */
async function welcome(controlPath: string, log: Telemetry["log"]): Promise<void> {
  if (!process.stdin.isTTY || !process.stdout.isTTY) {
    log("warn", 'nobody may come in yet: run "pair" in a terminal, or "keys import"');
    return;
  }
  try {
    using control = await ControlClient.connect(controlPath);
    const ending = await control?.pair("full", terminalDialogue({ yes: false }));
    if (ending) console.log(endingText(ending));
  } catch (error) {
    log("warn", "cannot show a pairing code", { error });
  }
}

/** What whoever started it should know, each time. */
function warnings({ authMode, host, tlsEnabled }: Config): string[] {
  return [
    ...(authMode === "none"
      ? ["auth.mode is none: whoever can reach the port can run commands as this account"]
      : []),
    ...(tlsEnabled || isLoopback(host)
      ? []
      : ["server.tls.enabled is false: whoever is on the way can read and change everything"]),
    ...(process.getuid?.() === 0
      ? ["running as root: what the agent is allowed to do, it does as root"]
      : []),
  ];
}
