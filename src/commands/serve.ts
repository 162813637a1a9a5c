import { createLogger } from "../adapters/logger.ts";
import { Metrics } from "../adapters/metrics.ts";
import { start } from "../app.ts";
import { loadConfig } from "../config.ts";
import { version } from "../version.ts";

/** How long the agents get to be killed when a person does not want to wait. */
const abandonMs = 1_000;

/**
 * Runs the server until it is told to stop, and gives the process's exit code. The first signal
 * lets the runs end; a second one kills them, and what is left is swept at the next start.
 */
export async function serve(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Promise<number> {
  const config = loadConfig(argv, env);
  const umask = process.umask(0o077);
  const log = createLogger(config);
  const metrics = new Metrics();
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

  const app = await start(config, { env, umask, metrics, log });
  log("info", "listening", {
    url: app.url.href,
    version,
    data_dir: config.dataDir,
    pid: process.pid,
  });
  const reason = await signalled;
  const stopped = app.drain(reason).then(() => app[Symbol.asyncDispose]());
  const abandoned = impatient.then(() => Promise.race([app.abandon(), Bun.sleep(abandonMs)]));
  const code = await Promise.race([stopped.then(() => 0), abandoned.then(() => 1)]);
  log("info", "stopped", { code });
  return code;
}
