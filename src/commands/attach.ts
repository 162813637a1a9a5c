import { ReadStream, WriteStream } from "node:tty";
import { attach as attachTo } from "../terminal/attach.ts";
import { call, type Command, UsageError } from "./command.ts";
import { doorDetails, doorFlags, doorOf, pathsOf } from "./door.ts";

export const attach: Command = {
  about: "Work in a project: watch, answer, type prompts",
  usage: ["attach PROJECT [--url URL]"],
  details: [
    "PROJECT is an id, a path, or the last name of one. Enter sends a prompt, which waits while",
    "another runs; Tab changes the permission mode; Ctrl-R shows raw events; Ctrl-C stops the run and",
    "twice leaves; Ctrl-D leaves. What runs goes on without you.",
    ...doorDetails,
  ],
  async run(argv, env) {
    const from = call(argv, env, doorFlags);
    const [project, ...more] = from.words;
    if (project === undefined || more.length > 0 || from.json)
      throw new UsageError("Cannot read the command: see attach --help");
    const { stdin: input, stdout: output } = process;
    if (!(input instanceof ReadStream && output instanceof WriteStream))
      throw new Error('Cannot attach: this is no terminal; "run" and "logs --follow" need none');
    const paths = pathsOf(from, project);
    return await attachTo(doorOf(from), { project, paths, input, output });
  },
};
