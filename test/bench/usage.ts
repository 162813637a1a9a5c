import { readFileSync } from "node:fs";

/** What a process has taken from its machine. */
export interface Usage {
  readonly cpuMs: number;
  readonly rssMb: number;
}

/** A clock tick of `/proc`, which every Linux that Bun runs on counts 100 of a second. */
const tickMs = 10;

/** Processor time since the start of a process, and its memory now. */
export function usageOf(pid: number): Usage {
  if (process.platform !== "linux") return usageByPs(pid);
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const cpuMs = (Number(fields[11]) + Number(fields[12])) * tickMs;
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return { cpuMs, rssMb: Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024 };
}

function usageByPs(pid: number): Usage {
  const { stdout } = Bun.spawnSync(["/bin/ps", "-o", "rss=,time=", "-p", String(pid)]);
  const [rss = "", time = ""] = stdout.toString().trim().split(/\s+/);
  const seconds = time.split(":").reduce((sum, part) => sum * 60 + Number(part), 0);
  return { cpuMs: seconds * 1000, rssMb: Number(rss) / 1024 };
}
