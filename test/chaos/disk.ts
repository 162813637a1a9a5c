import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Tracer } from "../support/tracer.ts";
import type { Chaos } from "./world.ts";

/** Fails so many calls of each kind, with gaps in which others succeed. */
const failures = [
  "write,pwrite64:error=ENOSPC:when=3..6",
  "write,pwrite64:error=EIO:when=2+3",
  "fdatasync,fsync:error=EIO:when=1+2",
  "fdatasync,fsync:error=ENOSPC:when=2+3",
  "ftruncate:error=EIO:when=1+2",
];
const failMs = 700;
const restMs = 500;

/** Clients work while the disk fails now and then; then it is sound again, and the server stops in order. */
export async function brokenDisk(chaos: Chaos, seconds: number): Promise<void> {
  const server = await chaos.start();
  const trace = join(chaos.home, "disk.trace");
  const injected = { ENOSPC: 0, EIO: 0 };
  await chaos.visits(server.url, async () => {
    const until = performance.now() + seconds * 1000;
    for (let round = 0; performance.now() < until; round += 1) {
      await Bun.sleep(restMs);
      const files = filesOf(chaos);
      if (files.length === 0) continue;
      const which = [failures[round % 5], failures[(round * 3 + 4) % 5]];
      const options = ["-o", trace, "-e", "trace=write,pwrite64,fdatasync,fsync,ftruncate"];
      for (const failure of new Set(which)) options.push("-e", `inject=${failure}`);
      for (const path of files) options.push("-P", path);
      {
        await using _ = await Tracer.attach(server.pid, options);
        await Bun.sleep(failMs);
      }
      const lines = readFileSync(trace, "utf8").split("\n");
      for (const code of ["ENOSPC", "EIO"] as const)
        injected[code] += lines.filter(
          (line) => line.includes(`${code} `) && line.endsWith("(INJECTED)"),
        ).length;
    }
    await Bun.sleep(restMs);
    await chaos.stop(server);
  });
  for (const [code, count] of Object.entries(injected)) chaos.faults[`disk: ${code}`] = count;
}

/** What the server writes of its projects, as far as it can be told beforehand. */
function filesOf(chaos: Chaos): string[] {
  return chaos.orders.open.flatMap((id) => {
    const folder = join(chaos.dataDir, "projects", id);
    const logs = join(folder, "logs");
    const names = readdirSync(folder).includes("logs") ? readdirSync(logs).toSorted() : [];
    const newest = names.findLast((name) => name.endsWith(".jsonl"));
    return [
      ...(newest === undefined ? [] : [join(logs, newest)]),
      ...["metadata.json.tmp", "executions.json.tmp"].map((name) => join(folder, name)),
    ];
  });
}
