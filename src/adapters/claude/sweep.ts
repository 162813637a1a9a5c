import { setTimeout as sleep } from "node:timers/promises";
import type { ProcessId, ProcessTable } from "./processes.ts";

/** Scans before it gives up: each catches what was forked during the one before. */
const rounds = 10;
/** How long the signalled have to go before the next scan. */
const graceMs = 400;
const pollMs = 20;

/** What a sweep looks for: processes with the marker, and those known by name. */
export interface Prey {
  readonly marker: string;
  readonly known: readonly ProcessId[];
}

export interface Sweep {
  /** How many processes had to be killed. */
  readonly swept: number;
  /** Whether a last scan found nothing. */
  readonly clean: boolean;
}

/** Ends everything that belongs to a run: SIGTERM first, SIGKILL from the second scan on. */
export async function sweep(prey: Prey, table: ProcessTable): Promise<Sweep> {
  const found = new Set<number>();
  let empty = 0;
  for (let round = 0; round < rounds; round += 1) {
    // Each scan must see what the signals before it have left.
    // oxlint-disable-next-line no-await-in-loop
    const pids = await owned(prey, table);
    empty = pids.length === 0 ? empty + 1 : 0;
    // One scan can miss a process: forked after the list was made, by a parent that was gone
    // before it was looked at, or looked at in the middle of its exec.
    if (empty === 2) return { swept: found.size, clean: true };
    if (empty === 1) continue;
    for (const pid of pids) {
      found.add(pid);
      signal(pid, round === 0 ? "SIGTERM" : "SIGKILL");
      // A stopped process takes SIGTERM only when it goes on.
      if (round === 0) signal(pid, "SIGCONT");
    }
    // oxlint-disable-next-line no-await-in-loop
    await gone(pids, table);
  }
  return { swept: found.size, clean: false };
}

async function owned(prey: Prey, table: ProcessTable): Promise<number[]> {
  const [carriers, known] = await Promise.all([
    table.carriers(prey.marker),
    Promise.all(
      prey.known.map(async ({ pid, started }) =>
        (await table.started(pid)) === started ? [pid] : [],
      ),
    ),
  ]);
  return [...new Set([...carriers, ...known.flat()])].filter((pid) => pid !== process.pid);
}

async function gone(pids: readonly number[], table: ProcessTable): Promise<void> {
  for (let waited = 0; waited < graceMs; waited += pollMs) {
    // oxlint-disable-next-line no-await-in-loop
    const alive = await Promise.all(pids.map(async (pid) => (await table.started(pid)) !== null));
    if (!alive.includes(true)) return;
    // oxlint-disable-next-line no-await-in-loop
    await sleep(pollMs);
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch {
    // It has gone by itself; one that may not be signalled shows up in the next scan.
  }
}
