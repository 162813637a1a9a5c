import * as v from "valibot";
import { permissionModes } from "../contract/agent-options.ts";
import { run as runPrompt } from "../terminal/run.ts";
import { type Call, call, type Command, UsageError } from "./command.ts";
import { doorDetails, doorFlags, doorOf, pathOn } from "./door.ts";

export const run: Command = {
  about: "Run a prompt in a directory, and print the answer as it comes",
  usage: [
    "run PATH [PROMPT|-] [--model M] [--permission-mode M] [--queue] [--new-session] [--url URL]",
  ],
  details: [
    "Without a prompt, or with -, it is read from standard input. The answer goes to standard output,",
    "all else to standard error; with --json each event is a line of standard output. --queue waits",
    "while something else runs there. The directory becomes a project if it is none.",
    "Exit codes: 0 it succeeded, 1 it failed, 2 wrong call, 130 stopped by Ctrl-C.",
    ...doorDetails,
  ],
  async run(argv, env) {
    const own = { ...doorFlags, model: "value", "permission-mode": "value" } as const;
    const from = call(argv, env, { ...own, queue: "switch", "new-session": "switch" });
    const [path, given, ...more] = from.words;
    const mode = from.flags.get("permission-mode");
    const known = v.safeParse(v.optional(v.picklist(permissionModes)), mode);
    if (path === undefined || more.length > 0)
      throw new UsageError("Cannot read the command: see run --help");
    if (!known.success)
      throw new UsageError(
        `Cannot use that permission mode: expected ${permissionModes.join(", ")}`,
      );
    return await runPrompt(doorOf(from), {
      path: pathOn(from, path),
      prompt: await promptOf(given),
      model: from.flags.get("model"),
      permissionMode: mode,
      ...switches(from),
    });
  },
};

function switches({ flags, json }: Call) {
  return { queue: flags.has("queue"), newSession: flags.has("new-session"), json };
}

async function promptOf(given: string | undefined): Promise<string> {
  if (given !== undefined && given !== "-") return given;
  if (process.stdin.isTTY) console.error("Type the prompt, and end it with Ctrl-D:");
  const prompt = await Bun.stdin.text();
  if (prompt.trim() === "") throw new UsageError("Cannot run the prompt: it is empty");
  return prompt.replace(/\r?\n$/, "");
}
