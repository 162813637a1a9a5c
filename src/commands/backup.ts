import { resolve } from "node:path";
import { administer, call, type Command, print, UsageError } from "./command.ts";

export const backup: Command = {
  about: "Copy everything the server keeps into a new folder, also while it runs",
  usage: ["backup DIR"],
  details: [
    "DIR must not exist, or be empty. It is there once the copy is whole and on the disk. It holds",
    "keys and history: keep it as safe as the data itself. To go back to it, stop the server and",
    "put the copy in the place of the data directory; clients notice, and read everything again.",
  ],
  async run(argv, env) {
    const from = call(argv, env);
    const [to, ...more] = from.words;
    if (!to || more.length > 0) throw new UsageError("Cannot read the command: see backup --help");
    const result = await administer("backup", { to: resolve(to) }, from);
    print(from, result, () => {
      const megabytes = (result.bytes / 1e6).toFixed(1);
      return `${result.files} files, ${megabytes} MB, are in ${result.to}`;
    });
    return 0;
  },
};
