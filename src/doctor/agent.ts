import { delimiter, dirname, isAbsolute } from "node:path";
import { Binary } from "../adapters/claude/binary.ts";
import { cleanEnvironment } from "../adapters/claude/environment.ts";
import { Inquiries } from "../adapters/claude/inquiry.ts";
import { searchPath } from "../adapters/claude/search-path.ts";
import type { Telemetry } from "../core/ports.ts";
import { fail, type Finding, ok, type Patient, warn } from "./finding.ts";

const silent = () => undefined;
const telemetry: Telemetry = { count: silent, gauge: silent, observe: silent, log: silent };

/** Whether the CLI is there, new enough, and logged in. */
export async function checkAgent({ config, env }: Patient): Promise<Finding[]> {
  const { path, shell } = await searchPath(config.claudeBinary, env);
  const environment = cleanEnvironment({
    environment: { ...env, PATH: path },
    extraEnv: config.claudeEnv ?? [],
    sshAgent: config.claudeSshAgent,
  });
  await using inquiries = new Inquiries(environment);
  const name = config.claudeBinary;
  const places = environment["PATH"] ?? "";
  const binary = new Binary({ name, searchPath: places, inquiries, telemetry });
  const program = binary.locate(null);
  if (program instanceof Error)
    return [fail("claude", program.message, "Install it, or set claude.binary to its path")];
  const version = await binary.version(program);
  const again = binary.locate(null);
  if (again instanceof Error)
    return [fail("claude", again.message, "npm install -g @anthropic-ai/claude-code")];
  if (version === null)
    return [
      fail("claude", `${program.path} does not say its version`, "Run it once in a terminal"),
    ];
  const why = isAbsolute(name)
    ? "named by claude.binary"
    : shell !== null && !(env["PATH"] ?? "").split(delimiter).includes(dirname(program.path))
      ? `in the PATH of the login shell, ${shell}`
      : "in PATH";
  const there = ok("claude", `${version} at ${program.path}, ${why}`);
  const loggedIn = await binary.authenticated(program);
  if (loggedIn) return [there, ok("login", "claude is logged in")];
  return loggedIn === false
    ? [there, fail("login", "claude is not logged in", 'Run "claude" in a terminal and log in')]
    : [there, warn("login", "claude does not say whether it is logged in", "Update it")];
}
