import { statfsSync } from "node:fs";
import type { Disk } from "../core/ports.ts";

const cacheMs = 1_000;

/** Watches the free space of the file system that holds `directory`. */
export function openDisk(directory: string): Disk {
  let measuredAt = Number.NEGATIVE_INFINITY;
  let free = 0;
  return {
    free() {
      const now = performance.now();
      if (now - measuredAt < cacheMs) return free;
      measuredAt = now;
      free = measure(directory);
      return free;
    },
  };
}

/** What an ordinary user may still write; nothing when the file system does not answer. */
function measure(directory: string): number {
  try {
    const { bavail, bsize } = statfsSync(directory);
    return bavail * bsize;
  } catch {
    // A disk that cannot be asked cannot be written to either, and callers treat 0 just so.
    return 0;
  }
}
