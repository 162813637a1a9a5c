/** Who runs on this machine: read from /proc on Linux, asked of ps(1) on macOS. */
import { readdir, readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { markerName } from "./environment.ts";

/** A process that cannot be taken for another one, later, with the same pid. */
export interface ProcessId {
  readonly pid: number;
  /** As the system states it; only ever compared. */
  readonly started: string;
}

export interface ProcessTable {
  /** Everything whose environment carries the marker, this process excepted. */
  readonly carriers: (marker: string) => Promise<readonly number[]>;
  /** A process and everything below it, where the marker alone might not find them. */
  readonly family: (pid: number) => Promise<readonly ProcessId[]>;
  /** When a process was started; null when there is none, or only what its parent has to collect. */
  readonly started: (pid: number) => Promise<string | null>;
}

/** Files of /proc read at the same time. */
const readAtOnce = 32;
/** A process in the middle of an exec shows an empty environment for a moment: look again. */
const looks = 5;
const lookAgainMs = 4;
/** Field 22 of /proc/PID/stat, counted from the state: the name before it may hold anything. */
const startField = 18;

/** Linux: every environment of our own user can be read, so there is no need for families. */
const procTable: ProcessTable = {
  carriers: async (marker) => {
    const entry = `${markerName}=${marker}`;
    const names = await readdir("/proc");
    const found: number[] = [];
    let pids = names.filter((name) => /^\d+$/.test(name)).map(Number);
    for (let look = 0; look < looks && pids.length > 0; look += 1) {
      // oxlint-disable-next-line no-await-in-loop -- gives an exec the time to get done
      if (look > 0) await sleep(lookAgainMs);
      // oxlint-disable-next-line no-await-in-loop -- as above
      const environments = await readEnvironments(pids);
      found.push(...pids.filter((pid) => environments.get(pid)?.split("\0").includes(entry)));
      pids = pids.filter((pid) => environments.get(pid) === "");
    }
    return found;
  },
  family: () => Promise.resolve([]),
  started: async (pid) => statStart((await readProc(pid, "stat")) ?? ""),
};

/** macOS: ps shows environments, but not those of the system's own programs. */
const psTable: ProcessTable = {
  carriers: async (marker) =>
    pidsWithMarker(await ps(["-axEww", "-o", "pid=,command="]), marker).filter(
      (pid) => pid !== process.pid,
    ),
  family: async (pid) =>
    familyOf(pid, parseFamilies(await ps(["-axo", "pid=,ppid=,pgid=,lstart="]))),
  started: async (pid) => psStart(await ps(["-o", "stat=,lstart=", "-p", String(pid)])),
};

/** The one of this machine. */
export const processTable = process.platform === "darwin" ? psTable : procTable;

/** The start time in a line of /proc/PID/stat. */
export function statStart(stat: string): string | null {
  const [state, ...fields] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return state === "Z" ? null : (fields[startField] ?? null);
}

/** The start time in what `ps -o stat=,lstart=` says of one process. */
export function psStart(output: string): string | null {
  const [, state = "Z", started = null] = /^\s*(\S+)\s+(\S.*?)\s*$/.exec(output) ?? [];
  return state.startsWith("Z") ? null : started;
}

/** The pids of `ps -axEww -o pid=,command=` whose environment carries the marker. */
export function pidsWithMarker(output: string, marker: string): number[] {
  const entry = `${markerName}=${marker}`;
  return output
    .split("\n")
    .filter((line) => line.split(" ").includes(entry))
    .map((line) => Number.parseInt(line, 10))
    .filter((pid) => pid > 0);
}

interface Relative extends ProcessId {
  readonly parent: number;
  readonly group: number;
}

/** The rows of `ps -axo pid=,ppid=,pgid=,lstart=`. */
export function parseFamilies(output: string): Relative[] {
  return output.split("\n").flatMap((line) => {
    const match = /^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\S.*?)\s*$/.exec(line);
    if (!match) return [];
    const [pid = 0, parent = 0, group = 0] = match.slice(1, 4).map(Number);
    return [{ pid, parent, group, started: match[4] ?? "" }];
  });
}

/** A process, its descendants, and the process groups that any of those lead. */
export function familyOf(root: number, all: readonly Relative[]): ProcessId[] {
  const family = new Set([root]);
  for (let before = 0; before < family.size;) {
    before = family.size;
    for (const { pid, parent, group } of all) {
      if (family.has(parent) || family.has(group)) family.add(pid);
    }
  }
  return all.filter(({ pid }) => family.has(pid)).map(({ pid, started }) => ({ pid, started }));
}

/** The environments of other processes, as far as they can be read. */
async function readEnvironments(pids: readonly number[]): Promise<Map<number, string | null>> {
  const others = pids.filter((pid) => pid !== process.pid);
  const read = new Map<number, string | null>();
  for (let at = 0; at < others.length; at += readAtOnce) {
    const some = others.slice(at, at + readAtOnce);
    // Read in slices, one after the other, so that the loop is not held up.
    // oxlint-disable-next-line no-await-in-loop
    const texts = await Promise.all(some.map((pid) => readProc(pid, "environ")));
    some.forEach((pid, index) => read.set(pid, texts[index] ?? null));
  }
  return read;
}

async function readProc(pid: number, file: "environ" | "stat"): Promise<string | null> {
  try {
    return await readFile(`/proc/${pid}/${file}`, "utf8");
  } catch {
    // It has gone since it was listed, or it is somebody else's and so none of ours.
    return null;
  }
}

async function ps(options: readonly string[]): Promise<string> {
  const child = Bun.spawn(["/bin/ps", ...options], {
    env: { LC_ALL: "C" },
    stdin: "ignore",
    stderr: "ignore",
    timeout: 5000,
    killSignal: "SIGKILL",
  });
  const output = await child.stdout.text();
  await child.exited;
  return output;
}
