import { logs as printLogs } from "../terminal/logs.ts";
import { call, type Command, UsageError } from "./command.ts";
import { doorDetails, doorFlags, doorOf, pathsOf } from "./door.ts";

export const logs: Command = {
  about: "Print the history of a project",
  usage: ["logs PROJECT [--follow] [--url URL]"],
  details: [
    "PROJECT is an id, a path, or the last name of one. --follow goes on with what happens; --json",
    "prints one record a line.",
    ...doorDetails,
  ],
  async run(argv, env) {
    const from = call(argv, env, { ...doorFlags, follow: "switch" });
    const [project, ...more] = from.words;
    if (project === undefined || more.length > 0)
      throw new UsageError("Cannot read the command: see logs --help");
    const paths = pathsOf(from, project);
    const follow = from.flags.has("follow");
    return await printLogs(doorOf(from), { project, paths, follow, json: from.json });
  },
};
