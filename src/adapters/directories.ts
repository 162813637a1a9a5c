import { accessSync, constants, realpathSync, statSync } from "node:fs";
import { realpath } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import { Fault } from "../contract/errors.ts";
import type { Directories } from "../core/ports.ts";
import { bootId } from "./boot-id.ts";
import { directoriesAmong, directoriesIn } from "./directory-entries.ts";
import { systemCode } from "./storage-fault.ts";

interface DirectoryRules {
  /** Where this server keeps data, certificates and configuration. */
  readonly ownFolders: readonly string[];
  /** Directories that projects must lie inside of; anywhere if null. */
  readonly roots: readonly string[] | null;
  /** HOME and CLAUDE_CONFIG_DIR are looked up here. */
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** Real paths that decide where clients may go. */
interface Fences {
  readonly secrets: readonly { readonly folder: string; readonly holding: string }[];
  readonly roots: readonly string[] | null;
}

/** Decides which directories an agent may be sent to work in. */
export function openDirectories(rules: DirectoryRules): Directories {
  const secrets = secretFolders(rules);
  const { roots, environment } = rules;
  const home = environment["HOME"] || homedir();

  return {
    resolve(given) {
      try {
        check(malformation(given));
        const path = realpathSync.native(given);
        const { dev, ino, uid } = enter(path);
        const fences = {
          secrets: secrets.map((secret) => ({ ...secret, folder: realPathOfSync(secret.folder) })),
          roots: roots && roots.map(realPathOfSync),
        };
        check(whyNoProject(path, fences));
        return { path, dev, ino, uid, boot_id: bootId() };
      } catch (cause) {
        throw new Fault("INVALID_PATH", `Cannot use ${JSON.stringify(given)}: ${reasonOf(cause)}`);
      }
    },
    available(path) {
      try {
        enter(path);
        return realpathSync.native(path) === path;
      } catch {
        // Why it is not available does not matter here.
        return false;
      }
    },
    async list(wanted) {
      const fences = {
        secrets: await Promise.all(
          secrets.map(async (secret) => ({ ...secret, folder: await realPathOf(secret.folder) })),
        ),
        roots: roots && [...new Set(await Promise.all(roots.map(realPathOf)))],
      };
      const given = wanted ?? (fences.roots ? beginningOf(fences.roots) : home);
      try {
        check(malformation(given));
        return await listing(await realpath(given), fences);
      } catch (cause) {
        throw new Fault("INVALID_PATH", `Cannot list ${JSON.stringify(given)}: ${reasonOf(cause)}`);
      }
    },
  };
}

/** Where to begin among the roots: in the only one, or above them all. */
function beginningOf(roots: readonly string[]): string {
  const [only = "/", ...more] = roots;
  return more.length === 0 ? only : "/";
}

/** What a client may see of a directory. Several roots are listed as if they were all that `/` has. */
async function listing(path: string, fences: Fences): Promise<Listing> {
  const { roots } = fences;
  const hidden = (place: string) => whySecret(place, fences) ?? whyOutside(place, fences);
  if (path === "/" && roots && beginningOf(roots) === "/" && whyOutside(path, fences)) {
    const entries = await directoriesAmong(roots);
    return { path, parent: null, entries: entries.filter((entry) => !hidden(entry.path)) };
  }
  check(hidden(path) ?? whyMounted(path, fences));
  const entries = (await directoriesIn(path)).filter((entry) => !hidden(entry.path));
  return { path, parent: parentOf(path, fences), entries };
}
type Listing = Awaited<ReturnType<Directories["list"]>>;

function parentOf(path: string, fences: Fences): string | null {
  const parent = dirname(path);
  if (parent === path) return null;
  if (!whyOutside(parent, fences)) return parent;
  return beginningOf(fences.roots ?? []) === "/" ? "/" : null;
}

function whyNoProject(path: string, fences: Fences): string | undefined {
  if (path === "/") return "it is the root of the file system";
  const self = fileAt(path);
  const held = fences.secrets.find(
    ({ folder }) =>
      isWithin(folder, path) || lineage(folder).some((file) => file !== null && file === self),
  );
  if (held) return `it holds ${held.holding}`;
  return whySecret(path, fences) ?? whyMounted(path, fences) ?? whyOutside(path, fences);
}

function whySecret(path: string, { secrets }: Fences): string | undefined {
  const around = secrets.find(({ folder }) => isWithin(path, folder));
  return around && partOf(around.holding, path === around.folder);
}

/** As `whySecret`, of a path that leads to a secret folder by another place where that is mounted. */
function whyMounted(path: string, { secrets }: Fences): string | undefined {
  const files = lineage(path);
  for (const { folder, holding } of secrets) {
    const secret = fileAt(folder);
    const at = secret === null ? -1 : files.indexOf(secret);
    if (at >= 0) return partOf(holding, at === 0);
  }
  return undefined;
}

const partOf = (holding: string, itself: boolean): string =>
  `it ${itself ? "is" : "lies in"} the folder of ${holding}`;

/** What a path and the folders above it lead to, the path first. */
function lineage(path: string): (string | null)[] {
  const parent = dirname(path);
  return [fileAt(path), ...(parent === path ? [] : lineage(parent))];
}

/** The same for all paths that lead to one file, also if it is mounted twice; null where there is none. */
function fileAt(path: string): string | null {
  try {
    const { dev, ino } = statSync(path);
    return `${dev}:${ino}`;
  } catch {
    // Not there, or not to be looked at: then it cannot be worked in either.
    return null;
  }
}

function whyOutside(path: string, { roots }: Fences): string | undefined {
  if (!roots || roots.some((root) => isWithin(path, root))) return undefined;
  return "it lies outside of the directories that are set as projects.roots";
}

/** Why a directory is refused although it could be entered. */
class Refusal extends Error {}

function check(refusal: string | undefined): void {
  if (refusal !== undefined) throw new Refusal(refusal);
}

/** Folders that no project may hold, be, or lie in; what each is there for. */
function secretFolders({ ownFolders, environment }: DirectoryRules): Fences["secrets"] {
  const home = environment["HOME"] || homedir();
  const claude = [join(home, ".claude")];
  if (environment["CLAUDE_CONFIG_DIR"]) claude.push(resolve(environment["CLAUDE_CONFIG_DIR"]));
  const ssh = { folder: join(home, ".ssh"), holding: "SSH keys" };
  return [
    ...ownFolders.map((folder) => ({ folder: resolve(folder), holding: "the server's own files" })),
    ...claude.map((folder) => ({ folder, holding: "the agent's own files" })),
    ssh,
  ];
}

function malformation(path: string): string | undefined {
  if (/\p{Cc}/u.test(path)) return "it has a control character in it";
  if (path.startsWith("~")) return "a leading ~ is not expanded; write the whole path";
  if (!isAbsolute(path)) return "it is not absolute";
  if (path.split("/").includes("..")) return 'it has a ".." in it';
  return undefined;
}

function enter(path: string): { dev: number; ino: number; uid: number } {
  const stats = statSync(path);
  if (!stats.isDirectory()) throw new Refusal("it is not a directory");
  accessSync(path, constants.R_OK | constants.X_OK);
  return stats;
}

/** Resolves links as far as the path exists, for a folder may be made later. */
async function realPathOf(path: string): Promise<string> {
  try {
    return await realpath(path);
  } catch {
    // Not there, or not to be entered: then the nearest parent that is decides.
    const parent = dirname(path);
    return parent === path ? path : join(await realPathOf(parent), basename(path));
  }
}

/** As `realPathOf`. */
function realPathOfSync(path: string): string {
  try {
    return realpathSync.native(path);
  } catch {
    const parent = dirname(path);
    return parent === path ? path : join(realPathOfSync(parent), basename(path));
  }
}

function isWithin(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder.endsWith("/") ? folder : `${folder}/`);
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "it does not exist",
  ENOTDIR: "it is not a directory",
  EACCES: "the server's account may not enter it",
  EPERM: "the server's account may not enter it",
  ELOOP: "its symbolic links go round in circles",
  ENAMETOOLONG: "it is too long",
};

function reasonOf(cause: unknown): string {
  if (cause instanceof Refusal) return cause.message;
  const code = systemCode(cause);
  if (code === undefined) throw cause;
  return reasons[code] ?? `it cannot be read (${code})`;
}
