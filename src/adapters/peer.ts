import { dlopen, type FFIFunction, FFIType, ptr } from "bun:ffi";
import { readFileSync } from "node:fs";
import { markerName } from "./claude/environment.ts";

/** The longest chain of parents that is followed. */
const maxAncestors = 64;
const libc =
  process.platform === "darwin"
    ? ["libSystem.B.dylib"]
    : ["libc.so.6", "libc.musl-x86_64.so.1", "libc.musl-aarch64.so.1"];
const { i32, ptr: pointer, u64 } = FFIType;

/** How to ask a unix socket for the process at its other end: level, option, where the pid is. */
const question =
  process.platform === "darwin"
    ? { level: 0, option: 2 /* LOCAL_PEERPID */, bytes: 4 }
    : { level: 1, option: 17 /* SO_PEERCRED: pid, uid, gid */, bytes: 12 };

/** The process that connected to a unix socket, or undefined when the system does not say. */
export function peerPid(fd: number): number | undefined {
  const answer = new Int32Array(3);
  const length = new Int32Array([question.bytes]);
  const { level, option } = question;
  const symbols = library({
    getsockopt: { args: [i32, i32, i32, pointer, pointer], returns: i32 },
  });
  const failed = symbols?.getsockopt(fd, level, option, ptr(answer), ptr(length));
  const [pid] = answer;
  return failed === 0 && pid ? pid : undefined;
}

/** Closes this process's memory, environment and descriptors to others of the same user (Linux). */
export function forbidInspection(): boolean {
  if (process.platform !== "linux") return false;
  const setDumpable = 4;
  const symbols = library({ prctl: { args: [i32, u64, u64, u64, u64], returns: i32 } });
  return symbols?.prctl(setDumpable, 0, 0, 0, 0) === 0;
}

/**
 * Whether an agent of this server, or something that one has started, is behind this process, or
 * may be: one that is gone by now, or does not let itself be looked at, counts as an agent's. Of its
 * ancestors only those that can be looked at count: sshd's, for one, hides itself.
 */
export function isAgents(pid: number): boolean {
  if (isMarked(pid) ?? true) return true;
  let current = parentOf(pid);
  for (let step = 0; step < maxAncestors && current > 1; step += 1) {
    if (isMarked(current)) return true;
    current = parentOf(current);
  }
  return false;
}

/** Whether a process carries the marker of a run; undefined when that cannot be seen. */
function isMarked(pid: number): boolean | undefined {
  // The server hides its own environment, also from itself.
  if (pid === process.pid) return process.env[markerName] !== undefined;
  if (process.platform === "darwin") {
    const command = ps("command=", pid, ["-E"]);
    return command === "" ? undefined : command.includes(` ${markerName}=`);
  }
  try {
    const environment = readFileSync(`/proc/${pid}/environ`, "utf8").split("\0");
    return environment.some((entry) => entry.startsWith(`${markerName}=`));
  } catch {
    // Gone, or it does not want to be seen.
    return undefined;
  }
}

function parentOf(pid: number): number {
  if (process.platform === "darwin") return Number(ps("ppid=", pid)) || 0;
  const stat = read(`/proc/${pid}/stat`);
  // The name before the last parenthesis may hold anything.
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]) || 0;
}

function ps(column: string, pid: number, flags: readonly string[] = []): string {
  const { stdout } = Bun.spawnSync(["ps", ...flags, "-ww", "-o", column, "-p", String(pid)]);
  return stdout.toString().trim();
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    // Gone, or somebody else's: either way nothing is known of it.
    return "";
  }
}

/** The C library, glibc's, musl's or Apple's; undefined where it goes by another name. */
function library<F extends Record<string, FFIFunction>>(functions: F) {
  for (const name of libc) {
    try {
      return dlopen(name, functions).symbols;
    } catch {
      // The next name may be the right one.
    }
  }
  return undefined;
}
