/**
 * Kills a real server with SIGKILL again and again, at random moments, while agents stream and
 * clients work, leave and return. Then, for some seconds each, its disk fails, its clock jumps, and a
 * bad network lies between it and its clients, until it is told to stop in the middle of it all. Another
 * one is killed at each step of beginning a new log file. In the end what clients were told is compared
 * with what the disk says.
 *
 *   bun run chaos [--rounds N] [--seconds N] [--seed N]
 *                                           exits with 1 if anything was lost, doubled or disordered
 *   bun run chaos --soak MINUTES            no accidents: exits with 1 also if the server has grown
 *   bun run chaos --control                 looks through a broken reader, and must exit with 1
 *
 * Failing disks and steps of a rotation need root, which may trace the server.
 */
import { mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { holds } from "../bench/figure.ts";
import { readLogs } from "./audit.ts";
import { clockSteps } from "./clock.ts";
import { control } from "./control.ts";
import { brokenDisk } from "./disk.ts";
import { kills } from "./kills.ts";
import { badNetwork } from "./network.ts";
import { report } from "./report.ts";
import { rotations } from "./rotation.ts";
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

/** Whatever goes wrong here, the server must not keep the process from ending. */
process.on("uncaughtException", (error) => {
  console.error(error);
  process.exit(1);
});

const judged = flags.soak === undefined ? [] : await soak(chaos, Number(flags.soak));
await kills(chaos, rounds);
if (seconds > 0) {
  await brokenDisk(chaos, seconds);
  await clockSteps(chaos, Math.min(seconds, 5));
  await badNetwork(chaos, seconds);
  // Before every call in a long test, before some of them in a short one.
  const stride = rounds < 100 ? 4 : 1;
  const { crashes, before, compared } = await rotations(home, {
    stride,
    anomalies: chaos.anomalies,
  });
  console.log(`killed in a rotation before: ${before.join(", ")}`);
  Object.assign(chaos.faults, { "rotation: kills": crashes, "rotation: compared": compared });
}
await chaos.lastLook();
const logs = readLogs(chaos.dataDir, chaos.anomalies);
const code = flags.control ? control(chaos, logs) : report(chaos, logs);
process.exitCode = judged.every(holds) ? code : 1;
