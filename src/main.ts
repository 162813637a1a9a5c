#!/usr/bin/env -S bun --no-env-file --config=/dev/null
import { ConfigError } from "./arguments.ts";
import { attach } from "./commands/attach.ts";
import { backup } from "./commands/backup.ts";
import { certs } from "./commands/certs.ts";
import { type Command, UsageError } from "./commands/command.ts";
import { config } from "./commands/config.ts";
import { devices } from "./commands/devices.ts";
import { doctor } from "./commands/doctor.ts";
import { keys } from "./commands/keys.ts";
import { logs } from "./commands/logs.ts";
import { pair } from "./commands/pair.ts";
import { projects } from "./commands/projects.ts";
import { run } from "./commands/run.ts";
import { serve } from "./commands/serve.ts";
import { service } from "./commands/service.ts";
import { token } from "./commands/token.ts";
import { version, versionText } from "./commands/version.ts";
import { help } from "./config.ts";
import { visible } from "./terminal/visible.ts";

const commands: Readonly<Record<string, Command>> = {
  serve,
  run,
  attach,
  logs,
  pair,
  token,
  devices,
  keys,
  certs,
  projects,
  backup,
  doctor,
  service,
  config,
  version,
};

/** Not top-level await: `bun build --compile --bytecode` refuses it. */
async function main(argv: readonly string[]): Promise<number> {
  const named = argv[0]?.startsWith("-") === false;
  const [name = "serve", ...rest] = named ? argv : ["serve", ...argv];
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (argv.includes("--help") || argv.includes("-h")) {
    console.log(named && command ? usage(command) : help(commands));
    return 0;
  }
  if (argv.includes("--version")) {
    console.log(versionText());
    return 0;
  }
  if (command) return await command.run(rest, process.env);
  throw new UsageError(`Cannot run ${JSON.stringify(name)}: there is no such command; see --help`);
}

function usage({ about, usage: calls, details }: Command): string {
  const [first, ...others] = calls.map((words) => `pocket-agent-server ${words}`);
  return [
    `${about}.`,
    "",
    `Usage: ${first}`,
    ...others.map((words) => `       ${words}`),
    "",
    ...details,
    "",
    "Takes the settings of the server too; see --help. --json makes the output JSON.",
  ].join("\n");
}

/** Output that is still in a pipe's way would be cut by `process.exit`. */
const flushed = (stream: NodeJS.WriteStream) =>
  new Promise<void>((resolve) => void stream.write("", () => resolve()));

void main(process.argv.slice(2))
  .catch((error: unknown) => {
    // A server's words may be in it.
    console.error(visible(error instanceof Error ? error.message : String(error)));
    return error instanceof ConfigError || error instanceof UsageError ? 2 : 1;
  })
  .then(async (code) => {
    await Promise.race([
      Promise.all([flushed(process.stdout), flushed(process.stderr)]),
      Bun.sleep(500),
    ]);
    process.exit(code);
  });
