import * as v from "valibot";
import { scopes } from "../contract/messages.ts";
import { call, type Command, print, server, UsageError } from "./command.ts";

export const token: Command = {
  about: "Make a token for a script on this machine",
  usage: ["token NAME [--scope full|approve|read]"],
  details: [
    "Prints the token, and nothing else, on standard output. NAME is that of the device which",
    "stands for it: devices revoke NAME ends it. It ends by itself after 7 days without use, or",
    "30 days. The server must be running.",
  ],
  async run(argv, env) {
    const from = call(argv, env, { scope: "value" });
    const [name, ...more] = from.words;
    const scope = v.safeParse(v.picklist(scopes), from.flags.get("scope") ?? "full");
    if (!name || more.length > 0 || !scope.success)
      throw new UsageError("Cannot read the command: see token --help");
    using running = await server(from);
    if (!running) throw new Error("Cannot make a token: no server is running on this data");
    const result = await running.ask("tokens.issue", { name, scope: scope.output });
    print(from, result, () => result.token);
    return 0;
  },
};
