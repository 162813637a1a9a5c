import { accessSync, constants, existsSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";

const PACKAGE = "@anthropic-ai/claude-code";
const VERSION = "2.1.197";
const CACHE = join(import.meta.dir, "../../.cache/claude-code");

/** The real `claude` CLI, and the surroundings in which it talks to nobody but a given API. */
export interface RealClaude {
  readonly binary: string;
  readonly environment: (home: string, apiUrl: string) => Record<string, string>;
}

/** Finds the CLI on the PATH, or installs it into the project's own cache. */
export async function realClaude(): Promise<RealClaude> {
  const binary = (await onPath()) ?? (await installed()) ?? (await install());
  return { binary, environment };
}

/** Everything the CLI is to see: no key, no settings and no session of the person who runs the tests. */
function environment(home: string, apiUrl: string): Record<string, string> {
  return {
    HOME: home,
    PATH: [dirname(process.execPath), process.env["PATH"]].filter(Boolean).join(":"),
    LANG: "C.UTF-8",
    TERM: "dumb",
    ANTHROPIC_BASE_URL: apiUrl,
    ANTHROPIC_API_KEY: "not-a-key",
    CLAUDE_CONFIG_DIR: join(home, ".claude"),
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
    CLAUDE_CODE_MAX_RETRIES: "1",
    DISABLE_AUTOUPDATER: "1",
    // Without it the CLI refuses to bypass permissions for root, which tests in containers are.
    IS_SANDBOX: "1",
  };
}

async function onPath(): Promise<string | undefined> {
  const found = Bun.which("claude");
  return found && (await versionOf(found))?.startsWith("2.1.") ? found : undefined;
}

/** The native binary of an earlier installation. */
async function installed(): Promise<string | undefined> {
  for (const platform of platforms()) {
    const binary = join(CACHE, "node_modules", `${PACKAGE}-${platform}`, "claude");
    if (existsSync(binary) && (await versionOf(binary)) === VERSION) return binary;
  }
  return undefined;
}

/**
 * The package itself holds a placeholder, which its postinstall script replaces. The script is not
 * run by default and is not needed: the binary lies in an optional package for each platform.
 */
async function install(): Promise<string> {
  mkdirSync(CACHE, { recursive: true });
  const manifest = { private: true, dependencies: { [PACKAGE]: VERSION } };
  await Bun.write(join(CACHE, "package.json"), JSON.stringify(manifest));
  const run = Bun.spawn([process.execPath, "install", "--no-save", "--ignore-scripts"], {
    cwd: CACHE,
    stdout: "ignore",
    stderr: "pipe",
  });
  const [code, errors] = await Promise.all([run.exited, run.stderr.text()]);
  const binary = code === 0 ? await installed() : undefined;
  if (!binary) throw new Error(`Cannot install claude ${VERSION}: ${errors.trim() || code}`);
  return binary;
}

/** Platform packages that may fit, the likelier first: a musl system may lack the other loader. */
function platforms(): readonly string[] {
  const platform = `${process.platform}-${process.arch}`;
  return process.platform === "linux" ? [platform, `${platform}-musl`] : [platform];
}

async function versionOf(binary: string): Promise<string | undefined> {
  try {
    accessSync(binary, constants.X_OK);
    const run = Bun.spawn([binary, "--version"], { stdout: "pipe", stderr: "ignore" });
    return /^(\d+\.\d+\.\d+) \(Claude Code\)/.exec(await run.stdout.text())?.[1];
  } catch {
    // It does not run here: then it is not the one to use.
    return undefined;
  }
}
