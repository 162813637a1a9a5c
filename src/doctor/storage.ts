import {
  accessSync,
  chmodSync,
  constants,
  type Dirent,
  existsSync,
  lstatSync,
  readdirSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { openDisk } from "../adapters/disk.ts";
import { explain, systemCode } from "../adapters/storage-fault.ts";
import { fail, type Finding, ok, type Patient } from "./finding.ts";

const shownAtMost = 5;

/** The data directory: whose it is, who can read it, and whether there is room. */
export function checkStorage({ config, fix }: Patient): Finding[] {
  const { dataDir, minFreeDisk } = config;
  const obstacle = existsSync(dataDir) ? undefined : obstacleAt(dataDir);
  if (obstacle) return [fail("data", `${dataDir}: ${obstacle.cause}`, sentence(obstacle.remedy))];
  if (!existsSync(dataDir))
    return [ok("data", `${dataDir} is not there yet; the first start makes it`)];
  const foreign: string[] = [];
  const open: { path: string; mode: number }[] = [];
  const closed: string[] = [];
  const user = process.getuid?.();
  for (const path of [dataDir, ...below(dataDir)]) {
    const entry = lstatSync(path);
    if (entry.uid !== user && entry.uid !== 0) foreign.push(path);
    const mode = entry.isDirectory() ? 0o700 : 0o600;
    if (entry.isDirectory() && obstacleAt(path)) closed.push(path);
    if (!entry.isSymbolicLink() && (entry.mode & 0o077) !== 0) open.push({ path, mode });
  }
  const found = [ok("data", dataDir)];
  if (foreign.length > 0)
    found.push(
      fail(
        "owner",
        `other users own ${shown(foreign)}`,
        `Look at them, then: sudo chown -R ${String(user)} ${quote(dataDir)}`,
      ),
    );
  if (closed.length > 0) {
    const { cause, remedy } = obstacleAt(closed[0] ?? dataDir) ?? explain("EACCES");
    found.push(fail("writing", `${cause}: ${shown(closed)}`, sentence(remedy)));
  }
  if (open.length > 0 && fix) {
    for (const { path, mode } of open) chmodSync(path, mode);
    found.push(ok("modes", `closed ${shown(open.map(({ path }) => path))} to others`));
  } else if (open.length > 0) {
    const paths = shown(open.map(({ path }) => path));
    found.push(
      fail("modes", `others may read ${paths}`, `doctor --fix, or: chmod -R go= ${quote(dataDir)}`),
    );
  }
  const free = openDisk(dataDir).free();
  const room = `${(free / 2 ** 30).toFixed(1)} GiB free`;
  found.push(
    free < minFreeDisk
      ? fail("disk", `${room}: no prompt is accepted (limits.min_free_disk)`, "Make room")
      : ok("disk", room),
  );
  return found;
}

/** What keeps the server from making files in a folder or, where there is none yet, from making it. */
function obstacleAt(folder: string): ReturnType<typeof explain> | undefined {
  try {
    accessSync(folder, constants.W_OK | constants.X_OK);
    return undefined;
  } catch (error) {
    const code = systemCode(error);
    const parent = dirname(folder);
    if (code === "ENOENT" && parent !== folder) return obstacleAt(parent);
    return explain(code ?? String(error));
  }
}

const sentence = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

/** Everything in a folder, however deep; not behind links, nor where this account may not look. */
function below(folder: string): string[] {
  return entriesOf(folder).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? [path, ...below(path)] : [path];
  });
}

function entriesOf(folder: string): Dirent[] {
  try {
    accessSync(folder, constants.X_OK);
    return readdirSync(folder, { withFileTypes: true });
  } catch {
    // It is among those that cannot be written either.
    return [];
  }
}

function shown(paths: readonly string[]): string {
  const more = paths.length - shownAtMost;
  return paths.slice(0, shownAtMost).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

const quote = (path: string): string => `'${path.replaceAll("'", "'\\''")}'`;
