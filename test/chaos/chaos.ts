/**
 * Kills a real server with SIGKILL again and again, at random moments, while agents stream and
 * clients work, leave and return; then puts a bad network between them for some seconds and tells the
 * server to stop in the middle of it all; then compares what clients were told with what the disk says.
 *
 *   bun run chaos [--rounds N] [--seconds N] [--seed N]
 *                                           exits with 1 if anything was lost, doubled or disordered
 *   bun run chaos --soak MINUTES            no accidents: exits with 1 also if the server has grown
 *   bun run chaos --control                 looks through a broken reader, and must exit with 1
 */
import { mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { holds } from "../bench/figure.ts";
import { readLogs } from "./audit.ts";
import { control } from "./control.ts";
import { kills } from "./kills.ts";
import { badNetwork } from "./network.ts";
import { report } from "./report.ts";
import { soak } from "./soak.ts";
import { Chaos } from "./world.ts";

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string" },
    seconds: { type: "string" },
    soak: { type: "string" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    control: { type: "boolean", default: false },
  },
});
const quiet = flags.soak !== undefined;
const rounds = Number(flags.rounds ?? (quiet ? 0 : flags.control ? 10 : 200));
const seconds = Number(flags.seconds ?? (quiet || flags.control ? 0 : 60));
const seed = Number(flags.seed);
console.log(`seed ${seed}`);

const home = realpathSync(mkdtempSync(join(tmpdir(), "pocket-chaos-")));
const dropEvery = flags.control ? 1_000 : undefined;
const chaos = new Chaos({ home, seed, ...(dropEvery && { dropEvery }) });
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => process.exit(1));
process.on("exit", () => {
  chaos[Symbol.dispose]();
  rmSync(home, { recursive: true, force: true });
});

const judged = flags.soak === undefined ? [] : await soak(chaos, Number(flags.soak));
await kills(chaos, rounds);
if (seconds > 0) await badNetwork(chaos, seconds);
await chaos.lastLook();
const logs = readLogs(chaos.dataDir, chaos.anomalies);
const code = flags.control ? control(chaos, logs) : report(chaos, logs);
process.exitCode = judged.every(holds) ? code : 1;
