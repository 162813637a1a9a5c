/** Compiles the server to executables: `bun run compile`, for all systems with `--all`. */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import { bundleConsole } from "../src/edge/console-bundle.ts";
import { checkPages, signAdHoc } from "./mach-o-signature.ts";

const targets = [
  "linux-x64",
  "linux-arm64",
  "linux-x64-musl",
  "linux-arm64-musl",
  "darwin-x64",
  "darwin-arm64",
] as const;
type Target = (typeof targets)[number];

const root = join(import.meta.dir, "..");
const usage = `Usage: bun run compile [--all]

Writes dist/pocket-agent-<system> for this machine, or with --all for each of
${targets.join(", ")},
and their SHA-256 to dist/SHA256SUMS.
`;

interface Build {
  readonly entry: string;
  readonly outfile: string;
  readonly target: Target;
  /** False only to show what it is good for. */
  readonly hardened?: boolean;
}

/** Where the executable for this machine is put. */
export function executablePath(target = hostTarget()): string {
  return join(root, "dist", `pocket-agent-${target}`);
}

/** Makes one executable. The same sources give the same bytes. */
export async function compile({ entry, outfile, target, hardened = true }: Build): Promise<void> {
  // Otherwise what lies in the directory it is started in could change what it does.
  const hardening = {
    autoloadDotenv: false,
    autoloadBunfig: false,
    autoloadTsconfig: false,
    autoloadPackageJson: false,
    execArgv: ["--disallow-code-generation-from-strings=strict"],
  };
  await Bun.build({
    entrypoints: [entry],
    compile: { target: `bun-${target}`, outfile, ...(hardened && hardening) },
    minify: true,
    // Embedded, so that stack traces name source lines.
    sourcemap: "linked",
    define: {
      BUILD_COMMIT: JSON.stringify(commit()),
      // As one text, which is not read before somebody asks for a page.
      CONSOLE_FILES: JSON.stringify(JSON.stringify(await bundleConsole())),
      // Bun writes down where a package lay when it was built, and each builder builds elsewhere.
      __dirname: '"/pocket-agent"',
      __filename: '"/pocket-agent/module.js"',
    },
  });
  rmSync(`${outfile}.map`, { force: true });
  if (target.startsWith("darwin")) sign(outfile, target);
}

function sign(path: string, target: Target): void {
  const file = readFileSync(path);
  if (target === "darwin-x64") {
    signAdHoc(file, basename(path));
    writeFileSync(path, file);
  }
  const { pages, invalid } = checkPages(file);
  if (invalid > 0) throw new Error(`Cannot sign ${path}: ${invalid} of ${pages} pages differ`);
}

/** The system of this machine, as a target. */
export function hostTarget(): Target {
  const cpu = process.arch === "arm64" ? "arm64" : "x64";
  const musl = existsSync(`/lib/ld-musl-${cpu === "arm64" ? "aarch64" : "x86_64"}.so.1`);
  if (process.platform === "darwin") return `darwin-${cpu}`;
  return musl && process.platform === "linux" ? `linux-${cpu}-musl` : `linux-${cpu}`;
}

/** The commit the sources are at, if they are in a repository of their own. */
function commit(): string {
  if (git("rev-parse", "--show-prefix") !== "") return "unknown";
  const id = git("rev-parse", "--short=12", "HEAD");
  if (id === undefined) return "unknown";
  return git("status", "--porcelain") === "" ? id : `${id}-dirty`;
}

function git(...args: string[]): string | undefined {
  if (!Bun.which("git")) return undefined;
  const { success, stdout } = Bun.spawnSync(["git", ...args], { cwd: root, stderr: "ignore" });
  return success ? stdout.toString().trim() : undefined;
}

async function main(): Promise<number> {
  let chosen: readonly Target[];
  try {
    const { values } = parseArgs({
      options: { all: { type: "boolean" }, help: { type: "boolean" } },
    });
    if (values.help) {
      process.stdout.write(usage);
      return 0;
    }
    chosen = values.all ? targets : [hostTarget()];
  } catch (cause) {
    process.stderr.write(`${cause instanceof Error ? cause.message : String(cause)}\n\n${usage}`);
    return 2;
  }

  rmSync(join(root, "dist"), { recursive: true, force: true });
  mkdirSync(join(root, "dist"));
  const sums: string[] = [];
  for (const target of chosen) {
    const outfile = executablePath(target);
    // One after the other: each takes the memory of a whole executable.
    // oxlint-disable-next-line no-await-in-loop
    await compile({ entry: join(root, "src/main.ts"), outfile, target });
    const content = readFileSync(outfile);
    const sum = createHash("sha256").update(content).digest("hex");
    const size = `${(content.length / 1e6).toFixed(1)} MB`;
    process.stdout.write(`${basename(outfile).padEnd(29)} ${size.padStart(9)}  ${sum}\n`);
    sums.push(`${sum}  ${basename(outfile)}\n`);
  }
  writeFileSync(join(root, "dist", "SHA256SUMS"), sums.join(""));
  return 0;
}

if (import.meta.main) process.exitCode = await main();
