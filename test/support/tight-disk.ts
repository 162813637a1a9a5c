import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Something that keeps a server from writing more than a little, until it is relieved. */
export interface TightDisk extends Disposable {
  /** A command to run the server by. */
  readonly by: readonly string[];
  /** Takes what little is left, so that not even a small file fits. */
  readonly fill: () => void;
  readonly relieve: (serverPid: number) => void;
}

function run(...command: string[]): void {
  const { exitCode, stderr } = Bun.spawnSync(command);
  if (exitCode !== 0) throw new Error(`Cannot run ${command[0]}: ${stderr.toString().trim()}`);
}

/** A file system of 2 MiB at a folder; only root can mount one. */
export function tightFileSystem(folder: string): TightDisk {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  run("mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", folder);
  const ballast = join(folder, "ballast");
  return {
    by: [],
    fill() {
      const file = openSync(ballast, "w");
      try {
        for (;;) writeSync(file, Buffer.alloc(4096));
      } catch {
        // That is the point: it is full.
      } finally {
        closeSync(file);
      }
    },
    relieve() {
      rmSync(ballast, { force: true });
      run("mount", "-o", "remount,size=256m", folder);
    },
    [Symbol.dispose]: () => run("umount", folder),
  };
}

/** Makes a folder one that can only be read, whoever one is, until disposed; only root can. */
export function readOnly(folder: string): Disposable {
  run("mount", "--bind", folder, folder);
  run("mount", "-o", "remount,bind,ro", folder);
  return { [Symbol.dispose]: () => run("umount", folder) };
}

/** A command that gives up root's power to write everywhere, and is nothing to anybody else. */
export const asOrdinary: readonly string[] =
  process.getuid?.() === 0
    ? ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]
    : [];

/** A limit on the size of each file that the server writes; needs no privilege. */
export function tightFiles(bytes = 1_048_576): TightDisk {
  return {
    by: ["prlimit", `--fsize=${bytes}:`, "--"],
    fill: () => undefined,
    relieve: (serverPid) => run("prlimit", `--pid=${serverPid}`, "--fsize=unlimited:"),
    [Symbol.dispose]: () => undefined,
  };
}

/** Whether a file system can be mounted here. */
export function canMount(): boolean {
  const folder = mkdtempSync(join(tmpdir(), "pocket-agent-mount-"));
  try {
    tightFileSystem(folder)[Symbol.dispose]();
    return true;
  } catch {
    // The reason is always the same: whoever runs the tests may not.
    return false;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
