import { dlopen, type FFIFunction, FFIType, ptr } from "bun:ffi";
import { readFileSync } from "node:fs";

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

/** Whether an agent of this server, or something that one has started, is behind this process. */
export function isAgents(pid: number): boolean {
  let current = pid;
  for (let step = 0; step < maxAncestors && current > 1; step += 1) {
    if (carriesMarker(current)) return true;
    current = parentOf(current);
  }
  return false;
}

function carriesMarker(pid: number): boolean {
  if (process.platform === "darwin") return / POCKET_AGENT_RUN=/.test(ps("command=", pid, ["-E"]));
  return read(`/proc/${pid}/environ`)
    .split("\0")
    .some((entry) => entry.startsWith("POCKET_AGENT_RUN="));
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
