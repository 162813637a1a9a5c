import type { ProjectState } from "../contract/messages.ts";
import type { Link } from "./link.ts";
import { inline } from "./visible.ts";
import { Refused } from "./wire.ts";

/** The id of the project in a directory, which becomes one if it is none. */
export async function findOrCreate(link: Link, path: string): Promise<string> {
  try {
    const made = await link.insist("project_create", { path });
    if (made.type === "project_state") return made.data.id;
  } catch (error) {
    if (!(error instanceof Refused) || error.code !== "PROJECT_EXISTS") throw error;
    const id = error.details["project_id"];
    if (typeof id === "string") return id;
  }
  throw new Error(`Cannot find the project in "${inline(path)}": the server did not say its id`);
}

/** The project that somebody means by its id, its path, the last name of that, or how its id begins. */
export async function find(
  link: Link,
  named: string,
  paths: readonly string[],
): Promise<ProjectState> {
  const answer = await link.insist("project_list");
  const all = answer.type === "project_list_response" ? answer.data.projects : [];
  const exact = all.find(({ id, path }) => id === named || paths.includes(path));
  if (exact) return exact;
  const called = all.filter(({ path }) => path.split("/").at(-1) === named);
  const found =
    called.length > 0 ? called : all.filter(({ id }) => named.length >= 4 && id.startsWith(named));
  const [one, ...more] = found;
  if (one && more.length === 0) return one;
  const reason = one
    ? `${found.length} are called that: ${found.map(({ path }) => inline(path)).join(", ")}`
    : 'none has that id, path or name; "projects list" shows them';
  throw new Error(`Cannot find the project "${inline(named)}": ${reason}`);
}
