import { readFileSync } from "node:fs";

let known: string | undefined;

/** Identifies the current boot of the machine: the same until it restarts, then another. */
export function bootId(): string {
  known ??= read();
  return known;
}

function read(): string {
  if (process.platform === "darwin") {
    const { stdout } = Bun.spawnSync(["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]);
    return stdout.toString().trim() || unknown();
  }
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  } catch {
    return unknown();
  }
}

/** Where the system does not say, every start counts as a boot: the cautious mistake. */
function unknown(): string {
  return crypto.randomUUID();
}
