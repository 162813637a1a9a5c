import { accessSync, constants, realpathSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import { Fault } from "../contract/errors.ts";
import type { Directories } from "../core/ports.ts";
import { systemCode } from "./storage-fault.ts";

interface DirectoryRules {
  /** Where this server keeps data, certificates and configuration. */
  readonly ownFolders: readonly string[];
  /** Directories that projects must lie inside of; anywhere if null. */
  readonly roots: readonly string[] | null;
  /** HOME and CLAUDE_CONFIG_DIR are looked up here. */
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** Decides which directories an agent may be sent to work in. */
export function openDirectories(rules: DirectoryRules): Directories {
  const secrets = secretFolders(rules);
  const refusal = (path: string): string | undefined => {
    if (path === "/") return "it is the root of the file system";
    for (const [folder, holding] of secrets) {
      const secret = realPathOf(folder);
      if (isWithin(secret, path)) return `it holds ${holding}`;
      if (isWithin(path, secret)) return `it lies in the folder of ${holding}`;
    }
    if (!rules.roots || rules.roots.some((root) => isWithin(path, realPathOf(root)))) {
      return undefined;
    }
    return "it lies outside of the directories that are set as projects.roots";
  };

  return {
    resolve(given) {
      try {
        const malformed = malformation(given);
        if (malformed !== undefined) throw new Refusal(malformed);
        const path = realpathSync.native(given);
        const { dev, ino, uid } = enter(path);
        const refused = refusal(path);
        if (refused !== undefined) throw new Refusal(refused);
        return { path, dev, ino, uid };
      } catch (cause) {
        throw new Fault("INVALID_PATH", `Cannot use ${JSON.stringify(given)}: ${reasonOf(cause)}`);
      }
    },
    available(path) {
      try {
        enter(path);
        return true;
      } catch {
        // Why it is not available does not matter here.
        return false;
      }
    },
  };
}

/** Why a directory is refused although it could be entered. */
class Refusal extends Error {}

/** Folders that no project may hold, be, or lie in; what each is there for. */
function secretFolders({ ownFolders, environment }: DirectoryRules): [string, string][] {
  const home = environment["HOME"] || homedir();
  const claude = [join(home, ".claude")];
  if (environment["CLAUDE_CONFIG_DIR"]) claude.push(resolve(environment["CLAUDE_CONFIG_DIR"]));
  return [
    ...ownFolders.map((folder): [string, string] => [resolve(folder), "the server's own files"]),
    ...claude.map((folder): [string, string] => [folder, "the agent's own files"]),
    [join(home, ".ssh"), "SSH keys"],
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
function realPathOf(path: string): string {
  try {
    return realpathSync.native(path);
  } catch {
    // Not there, or not to be entered: then the nearest parent that is decides.
    const parent = dirname(path);
    return parent === path ? path : join(realPathOf(parent), basename(path));
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
  const code = systemCode(cause) ?? "unknown error";
  return reasons[code] ?? `it cannot be read (${code})`;
}
