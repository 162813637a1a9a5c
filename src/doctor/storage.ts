import { chmodSync, existsSync, lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { openDisk } from "../adapters/disk.ts";
import { fail, type Finding, ok, type Patient } from "./finding.ts";

const shownAtMost = 5;

/** The data directory: whose it is, who can read it, and whether there is room. */
export function checkStorage({ config, fix }: Patient): Finding[] {
  const { dataDir, minFreeDisk } = config;
  if (!existsSync(dataDir))
    return [ok("data", `${dataDir} is not there yet; the first start makes it`)];
  const foreign: string[] = [];
  const open: { path: string; mode: number }[] = [];
  const user = process.getuid?.();
  for (const path of [dataDir, ...below(dataDir)]) {
    const entry = lstatSync(path);
    if (entry.uid !== user && entry.uid !== 0) foreign.push(path);
    const mode = entry.isDirectory() ? 0o700 : 0o600;
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

/** Everything in a folder, however deep; not behind links. */
function below(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? [path, ...below(path)] : [path];
  });
}

function shown(paths: readonly string[]): string {
  const more = paths.length - shownAtMost;
  return paths.slice(0, shownAtMost).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

const quote = (path: string): string => `'${path.replaceAll("'", "'\\''")}'`;
