import { readFileSync } from "node:fs";

/** Of macOS: whoever administers the machine can do anything, and its package managers share with them. */
const adminGid = 80;

/**
 * Whether nobody but root and this account can do what a group may. Only the machine's own files are
 * asked: a group that nothing but a directory service knows counts as shared.
 */
export function isPrivateGroup(gid: number): boolean {
  if (gid === 0) return true;
  // Its files do not say who is in a group.
  if (process.platform === "darwin") return gid === adminGid;
  const users = entries("/etc/passwd");
  const own = users.filter(([, , uid]) => uid === "0" || uid === String(process.getuid?.()));
  const names = new Set(own.map(([name]) => name));
  const group = entries("/etc/group").find(([, , id]) => id === String(gid));
  if (!group) return false;
  const [, , , listed = ""] = group;
  const primary = users.filter(([, , , id]) => id === String(gid)).map(([name]) => name);
  const members = [...listed.split(",").filter((name) => name !== ""), ...primary];
  return members.every((name) => names.has(name));
}

function entries(path: string): string[][] {
  try {
    return readFileSync(path, "utf8")
      .split("\n")
      .map((line) => line.split(":"));
  } catch {
    // Then nobody is known, and every group counts as shared.
    return [];
  }
}
