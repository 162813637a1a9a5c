import { protocolVersion } from "../contract/messages.ts";
import { commit, version as number } from "../version.ts";
import { splitArguments } from "../arguments.ts";
import type { Command } from "./command.ts";

export const version: Command = {
  about: "Print the version, the commit it was built from, and that of Bun",
  usage: ["version"],
  details: [],
  async run(argv) {
    const { flags } = splitArguments(argv, { json: "switch" });
    const about = { version: number, commit, bun: Bun.version, protocol: protocolVersion };
    console.log(flags.has("json") ? JSON.stringify(about) : versionText());
    return 0;
  },
};

/** In a line, as `--version` prints it. */
export function versionText(): string {
  return `pocket-agent-server ${number} (${commit}, Bun ${Bun.version})`;
}
