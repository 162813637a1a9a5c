import { createHash, randomUUID } from "node:crypto";
import {
  chmodSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { systemCode } from "./storage-fault.ts";

const holderSchema = v.object({
  pid: v.pipe(v.number(), v.integer(), v.minValue(1)),
  /** When the process began, as the system tells it; pids are used again, this pair is not. */
  process_start: v.string(),
  started_at: v.string(),
});
type Holder = v.InferOutput<typeof holderSchema>;

/** Makes the data directory if need be and claims it for this process until disposed. */
export function lockDataDir(dataDir: string): Disposable {
  try {
    prepare(dataDir);
    for (const deadline = performance.now() + 10_000; performance.now() < deadline;) {
      const lock = acquire(join(dataDir, "server.lock"));
      if (lock === "busy") Bun.sleepSync(1);
      else if (Symbol.dispose in lock) return lock;
      else throw new Error(heldBy(lock));
    }
    throw new Error("others are fighting for it; try again");
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new Error(`Cannot use the data directory "${dataDir}": ${reason}`, { cause });
  }
}

function heldBy({ pid, started_at }: Holder): string {
  return `another server (process ${pid}, since ${started_at}) is using it; stop that one with "kill ${pid}", or give this one another data directory`;
}

function prepare(dataDir: string): void {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const user = process.getuid?.();
  const target = statSync(dataDir);
  if (!target.isDirectory()) throw new Error("it is not a directory");
  if (target.uid !== user) throw new Error("it belongs to another user");
  // A link that somebody else owns could be turned elsewhere while the server runs.
  const { uid } = lstatSync(dataDir);
  if (uid !== user && uid !== 0) throw new Error("it is a link that belongs to another user");
  if ((target.mode & 0o777) !== 0o700) chmodSync(dataDir, 0o700);
}

/**
 * Makes the lock file, or says who holds it. The file of a dead process is replaced, never
 * removed: whoever replaces it holds a lock on just that file's content meanwhile, so that two
 * who found the same leftover cannot both do it, nor one undo what the other did.
 */
function acquire(path: string): Disposable | Holder | "busy" {
  const own = JSON.stringify({
    pid: process.pid,
    process_start: processStart(process.pid) ?? "unknown",
    started_at: new Date().toISOString(),
    nonce: randomUUID(),
  });
  const draft = `${path}.${randomUUID()}`;
  // link() rather than an exclusive open(): a lock file is complete from the moment it exists.
  writeFileSync(draft, own, { flag: "wx", mode: 0o600 });
  try {
    if (link(draft, path)) return release(path, own);
    const found = read(path);
    if (found === undefined) return "busy";
    const holder = liveHolder(found);
    if (holder) return holder;
    const claim = acquire(`${path}.${createHash("sha1").update(found).digest("hex")}`);
    if (claim === "busy" || !(Symbol.dispose in claim)) return "busy";
    using _ = claim;
    if (read(path) !== found) return "busy";
    renameSync(draft, path);
    return release(path, own);
  } finally {
    remove(draft);
  }
}

function release(path: string, own: string): Disposable {
  return {
    [Symbol.dispose]() {
      if (read(path) === own) remove(path);
    },
  };
}

/** Who wrote a lock file, if that process still runs. A torn file is nobody's: see `link`. */
function liveHolder(text: string): Holder | undefined {
  const holder = v.safeParse(v.pipe(v.string(), v.parseJson(), holderSchema), text);
  if (!holder.success) return undefined;
  const { pid, process_start } = holder.output;
  return processStart(pid) === process_start ? holder.output : undefined;
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
  return `${read("/proc/sys/kernel/random/boot_id")?.trim()} ${fields[19]}`;
}

function processStartByPs(pid: number): string | undefined {
  const { stdout } = Bun.spawnSync(["/bin/ps", "-o", "stat=", "-o", "lstart=", "-p", String(pid)], {
    // Else the text would depend on who asks.
    env: { LC_ALL: "C", TZ: "UTC" },
  });
  const [status = "", ...start] = stdout.toString().trim().split(/\s+/);
  return status === "" || status.startsWith("Z") ? undefined : start.join(" ");
}

function link(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (cause) {
    if (systemCode(cause) === "EEXIST") return false;
    throw cause;
  }
}

function read(path: string): string | undefined {
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
