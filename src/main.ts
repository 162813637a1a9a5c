#!/usr/bin/env bun
import { serve } from "./commands/serve.ts";
import { ConfigError, help } from "./config.ts";
import { commit, version } from "./version.ts";

/** Not top-level await: `bun build --compile --bytecode` refuses it. */
async function main(argv: readonly string[]): Promise<number> {
  if (argv.includes("--help") || argv.includes("-h")) {
    console.log(help());
    return 0;
  }
  if (argv.includes("--version")) {
    console.log(`pocket-agent-server ${version} (${commit}, Bun ${Bun.version})`);
    return 0;
  }
  const [command, ...rest] = argv[0]?.startsWith("-") === false ? argv : ["serve", ...argv];
  if (command === "serve") return await serve(rest, process.env);
  console.error(`Cannot run ${JSON.stringify(command)}: there is no such command; see --help`);
  return 2;
}

/** Output that is still in a pipe's way would be cut by `process.exit`. */
const flushed = (stream: NodeJS.WriteStream) =>
  new Promise<void>((resolve) => void stream.write("", () => resolve()));

void main(process.argv.slice(2))
  .catch((error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
    return error instanceof ConfigError ? 2 : 1;
  })
  .then(async (code) => {
    await Promise.race([
      Promise.all([flushed(process.stdout), flushed(process.stderr)]),
      Bun.sleep(500),
    ]);
    process.exit(code);
  });
