import { createHash, randomUUID } from "node:crypto";
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  statSync,
  symlinkSync,
  unlinkSync,
} from "node:fs";
import { join } from "node:path";
import { forbidden } from "../access/owned-file.ts";
import { dataDirFault, systemCode } from "./storage-fault.ts";

const lockName = "server.lock";

/** The process that uses a data directory, as its lock says. */
interface Holder {
  readonly pid: number;
}

/** Makes the data directory if need be and claims it for this process until disposed. */
export function lockDataDir(dataDir: string): Disposable {
  try {
    prepare(dataDir);
    const path = join(dataDir, lockName);
    for (const deadline = performance.now() + 10_000; performance.now() < deadline;) {
      const lock = acquire(path);
      if (lock === "busy") Bun.sleepSync(1);
      else if (Symbol.dispose in lock) return lock;
      else throw new Refusal(heldBy(lock, path));
    }
    throw new Refusal("others are fighting for it; try again");
  } catch (cause) {
    if (!(cause instanceof Refusal)) throw dataDirFault(dataDir, cause);
    throw new Error(`Cannot use the data directory "${dataDir}": ${cause.message}`, { cause });
  }
}

/** Why a data directory is not used although the system would let us. */
class Refusal extends Error {}

/** The process that uses a data directory; undefined if none does. */
export function holderOf(dataDir: string): number | undefined {
  const text = read(join(dataDir, lockName));
  return text === undefined ? undefined : liveHolder(text)?.pid;
}

function heldBy({ pid }: Holder, path: string): string {
  const since = lstatSync(path, { throwIfNoEntry: false })?.mtime.toISOString() ?? "just now";
  return `another server (process ${pid}, since ${since}) is using it; stop that one with "kill ${pid}", or give this one another data directory`;
}

function prepare(dataDir: string): void {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const user = process.getuid?.();
  const target = statSync(dataDir);
  if (!target.isDirectory()) throw new Refusal("it is not a directory");
  if (target.uid !== user) throw new Refusal("it belongs to another user");
  // A link that somebody else owns could be turned elsewhere while the server runs.
  const { uid } = lstatSync(dataDir);
  if (uid !== user && uid !== 0) throw new Refusal("it is a link that belongs to another user");
  if ((target.mode & forbidden.writing) !== 0 && readdirSync(dataDir).length > 0)
    throw new Refusal(
      "others may have put something into it; look at what is there, then close it with chmod 700",
    );
  if ((target.mode & 0o777) !== 0o700) chmodSync(dataDir, 0o700);
}

/**
 * Makes the lock, or says who holds it. It is a link to nowhere: it is complete from the moment it
 * exists, and so short a target lies in the entry itself, for which there is room on a full disk,
 * too. The lock of a dead process is replaced, never removed: whoever replaces it holds a lock on
 * just that one meanwhile, so that two who found the same leftover cannot both do it, nor one undo
 * what the other did.
 */
function acquire(path: string): Disposable | Holder | "busy" {
  const nonce = randomUUID().slice(0, 8);
  const own = `${process.pid} ${processStart(process.pid) ?? "unknown"} ${nonce}`;
  if (link(own, path)) return release(path, own);
  const found = read(path);
  if (found === undefined) return "busy";
  const holder = liveHolder(found);
  if (holder) return holder;
  const claim = acquire(`${path}.${createHash("sha1").update(found).digest("hex")}`);
  if (claim === "busy" || !(Symbol.dispose in claim)) return "busy";
  using _ = claim;
  if (read(path) !== found) return "busy";
  const draft = `${path}.${randomUUID()}`;
  symlinkSync(own, draft);
  renameSync(draft, path);
  return release(path, own);
}

function release(path: string, own: string): Disposable {
  return {
    [Symbol.dispose]() {
      if (read(path) === own) remove(path);
    },
  };
}

/**
 * Who made a lock, if that process still runs: pids are used again, but not with the same beginning.
 * What is no such text is nobody's.
 */
function liveHolder(text: string): Holder | undefined {
  const [, pid = "", start = ""] = /^([1-9]\d{0,9}) (.+) [0-9a-f]{8}$/.exec(text) ?? [];
  if (start === "" || processStart(Number(pid)) !== start) return undefined;
  return { pid: Number(pid) };
}

/** When a process began, in whatever form the system has it; undefined if it does not run. */
function processStart(pid: number): string | undefined {
  if (process.platform !== "linux") return processStartByPs(pid);
  const stat = read(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  // The name, in parentheses, may hold anything; from behind it, the state is the third field.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  if (fields[0] === "Z" || fields[0] === "X") return undefined;
  // Ticks count from the machine's start, so they mean something within one boot only.
  return `${read("/proc/sys/kernel/random/boot_id")?.slice(0, 8)} ${fields[19]}`;
}

function processStartByPs(pid: number): string | undefined {
  const { stdout } = Bun.spawnSync(["/bin/ps", "-o", "stat=", "-o", "lstart=", "-p", String(pid)], {
    // Else the text would depend on who asks.
    env: { LC_ALL: "C", TZ: "UTC" },
  });
  const [status = "", ...start] = stdout.toString().trim().split(/\s+/);
  return status === "" || status.startsWith("Z") ? undefined : start.join(" ");
}

function link(target: string, path: string): boolean {
  try {
    symlinkSync(target, path);
    return true;
  } catch (cause) {
    if (systemCode(cause) === "EEXIST") return false;
    throw cause;
  }
}

function read(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch (cause) {
    if (systemCode(cause) === "ENOENT") return undefined;
    if (systemCode(cause) !== "EINVAL") throw cause;
  }
  // No link, then: a file.
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    if (systemCode(cause) === "ENOENT" || systemCode(cause) === "ESRCH") return undefined;
    throw cause;
  }
}

function remove(path: string): void {
  try {
    unlinkSync(path);
  } catch (cause) {
    if (systemCode(cause) !== "ENOENT") throw cause;
  }
}
