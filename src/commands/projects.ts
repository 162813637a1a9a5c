import { resolve } from "node:path";
import type { ProjectState } from "../contract/messages.ts";
import { administer, call, type Command, print, UsageError } from "./command.ts";
import { table } from "./table.ts";

export const projects: Command = {
  about: "List, create and delete projects",
  usage: ["projects [list]", "projects create PATH [--trust]", "projects delete PROJECT"],
  details: [
    "PROJECT is an id, the beginning of one, or the path. --trust lets the directory's own settings",
    "take effect, which can run programs. Deleting forgets the history, never the directory.",
  ],
  async run(argv, env) {
    const from = call(argv, env, { trust: "switch" });
    const [action = "list", argument, ...more] = from.words;
    if (action === "list" && argument === undefined) {
      const result = await administer("projects.list", {}, from);
      print(from, result, () => list(result.projects));
    } else if (action === "create" && argument && more.length === 0) {
      const trusted = from.flags.has("trust") ? true : null;
      const result = await administer(
        "projects.create",
        { path: resolve(argument), trusted },
        from,
      );
      print(from, result, () => `${result.project.path} is the project ${result.project.id} now`);
    } else if (action === "delete" && argument && more.length === 0) {
      const project = argument.includes("/") ? resolve(argument) : argument;
      const result = await administer("projects.delete", { project }, from);
      print(from, result, () => `The history of ${result.project.path} is forgotten`);
    } else throw new UsageError("Cannot read the command: see projects --help");
    return 0;
  },
};

function list(all: readonly ProjectState[]): string {
  if (all.length === 0) return 'There is no project yet; "projects create PATH" makes one';
  return table(
    ["ID", "STATE", "LAST ACTIVE", "RUNS", "COST", "PATH"],
    all.map(({ id, state, last_active, usage, path, available }) => [
      id,
      state,
      last_active.slice(0, 16),
      String(usage.runs),
      `$${usage.cost_usd.toFixed(2)}`,
      available ? path : `${path} (not there)`,
    ]),
  );
}
