import { splitArguments } from "../arguments.ts";
import { settingsOf } from "../config.ts";
import { type Command, UsageError } from "./command.ts";
import { table } from "./table.ts";

export const config: Command = {
  about: "Show every setting with its value and where it comes from, or check them",
  usage: ["config [show]", "config check"],
  details: [
    "Takes the flags of the server, and shows what it would do with them. check exits with 2 and",
    "lists every problem when the server would not start.",
  ],
  async run(argv, env) {
    const { flags, words, settings } = splitArguments(argv, { json: "switch" });
    const [action = "show", ...more] = words;
    if (more.length > 0 || (action !== "show" && action !== "check"))
      throw new UsageError("Cannot read the command: see config --help");
    const all = settingsOf(settings, env);
    const json = flags.has("json");
    if (action === "check")
      console.log(json ? JSON.stringify({ problems: [] }) : "The settings are in order");
    else if (json) console.log(JSON.stringify({ settings: all }, null, 2));
    else
      console.log(
        table(
          ["SETTING", "VALUE", "FROM"],
          all.map(({ file, value, source }) => [file, show(value), source]),
        ),
      );
    return 0;
  },
};

function show(value: unknown): string {
  if (value === null) return "–";
  if (Array.isArray(value)) return value.join(", ");
  return typeof value === "string" ? value : JSON.stringify(value);
}
