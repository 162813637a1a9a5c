/**
 * Preloaded into a server: SIGUSR2 makes it write what it holds on to into the file that COUNTS
 * names, after everything that nothing refers to has been collected.
 */
import { heapStats } from "bun:jsc";
import { readdirSync, renameSync, writeFileSync } from "node:fs";

const path = process.env["COUNTS"] ?? "";

process.on("SIGUSR2", () => {
  Bun.gc(true);
  const { heapSize, objectTypeCounts } = heapStats();
  const counts = {
    rss: process.memoryUsage.rss(),
    heap: heapSize,
    descriptors: readdirSync("/proc/self/fd").length,
    timers: objectTypeCounts["Timeout"] ?? 0,
  };
  writeFileSync(`${path}.tmp`, JSON.stringify(counts));
  renameSync(`${path}.tmp`, path);
});
