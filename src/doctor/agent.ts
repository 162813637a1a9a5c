import { Binary } from "../adapters/claude/binary.ts";
import { cleanEnvironment } from "../adapters/claude/environment.ts";
import { Inquiries } from "../adapters/claude/inquiry.ts";
import type { Telemetry } from "../core/ports.ts";
import { fail, type Finding, ok, type Patient, warn } from "./finding.ts";

const silent = () => undefined;
const telemetry: Telemetry = { count: silent, gauge: silent, observe: silent, log: silent };

/** Whether the CLI is there, new enough, and logged in. */
export async function checkAgent({ config, env }: Patient): Promise<Finding[]> {
  const environment = cleanEnvironment({
    environment: env,
    extraEnv: config.claudeEnv ?? [],
    sshAgent: config.claudeSshAgent,
  });
  await using inquiries = new Inquiries(environment);
  const name = config.claudeBinary;
  const searchPath = environment["PATH"] ?? "";
  const binary = new Binary({ name, searchPath, inquiries, telemetry });
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
  const there = ok("claude", `${version} at ${program.path}`);
  const loggedIn = await binary.authenticated(program);
  if (loggedIn) return [there, ok("login", "claude is logged in")];
  return loggedIn === false
    ? [there, fail("login", "claude is not logged in", 'Run "claude" in a terminal and log in')]
    : [there, warn("login", "claude does not say whether it is logged in", "Update it")];
}
