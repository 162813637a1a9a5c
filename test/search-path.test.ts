import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Finding } from "../src/doctor/finding.ts";
import { searchPath } from "../src/adapters/claude/search-path.ts";
import { scratch } from "./support/app.ts";
import { until } from "./support/claude-lab.ts";
import { Client } from "./support/client.ts";
import { ServerProcess } from "./support/server-process.ts";

setDefaultTimeout(60_000);

const main = join(import.meta.dir, "..", "src", "main.ts");
const bare = "/usr/bin:/bin";

let stack: AsyncDisposableStack;
let home: string;
let tools: string;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  home = await scratch(stack);
  tools = join(home, "my tools");
  mkdirSync(tools);
  // The stand-in for the CLI finds its bun where a person's would be: in the same PATH.
  symlinkSync(process.execPath, join(tools, "bun"));
  symlinkSync(join(import.meta.dir, "support", "fake-claude.ts"), join(tools, "claude"));
});

afterEach(() => stack.disposeAsync());

/** What a person's rc files do. */
function profile(script: string): void {
  for (const name of [".profile", ".bash_profile", ".bashrc"])
    writeFileSync(join(home, name), script);
}

const noisy = () => `
echo "Welcome back!"; echo "PATH is about to change" >&2
printf 'no end of line'
export PATH="${tools}:${bare}:relative:"
`;

const settings = { PATH: bare, SHELL: "/bin/bash", PA_CLAUDE_BINARY: "claude" };

async function doctor(env: Readonly<Record<string, string>>): Promise<Finding | undefined> {
  const child = Bun.spawn([process.execPath, main, "doctor", "--json"], {
    env: { HOME: home, PA_DATA_DIR: join(home, "data"), PA_SERVER_PORT: "0", ...env },
    stdout: "pipe",
  });
  const { findings }: { findings: Finding[] } = JSON.parse(await child.stdout.text());
  return findings.find(({ what }) => what === "claude");
}

test("a server with a bare PATH finds claude in that of the login shell, and so do its agents", async () => {
  profile(noisy());
  const server = stack.use(await ServerProcess.start({ home, settings }));
  const client = stack.use(await Client.connect(server.url));
  const path = join(home, "work");
  mkdirSync(path);
  const id = await client.create(path);
  expect(await client.run(id, 'bash:echo "$PATH" > found')).toMatchObject({ state: "IDLE" });
  expect(await Bun.file(join(path, "found")).text()).toBe(`${tools}:${bare}\n`);
  expect(await doctor(settings)).toMatchObject({
    status: "ok",
    text: expect.stringContaining(`at ${tools}/claude, in the PATH of the login shell, /bin/bash`),
  });
});

test("doctor says when claude is in PATH, and when it is named", async () => {
  const path = `${bare}:${tools}`;
  expect((await doctor({ PATH: path }))?.text).toEndWith(`at ${tools}/claude, in PATH`);
  const named = { PATH: `${bare}:${tools}`, PA_CLAUDE_BINARY: join(tools, "claude") };
  expect((await doctor(named))?.text).toEndWith("named by claude.binary");
});

test("the shell is asked by a service always, by others only when there is no claude", async () => {
  profile(noisy());
  const env = { HOME: home, PATH: bare, SHELL: "/bin/bash" };
  const longer = { path: `${tools}:${bare}`, shell: "/bin/bash" };
  expect(await searchPath("claude", env)).toEqual(longer);
  expect(await searchPath("/nowhere/claude", env)).toEqual({ path: bare, shell: null });
  expect(await searchPath("sh", env)).toEqual({ path: bare, shell: null });
  expect(await searchPath("sh", { ...env, NOTIFY_SOCKET: "/run/x" })).toEqual(longer);
  const launchd = { ...env, XPC_SERVICE_NAME: "pocket-agent-server" };
  expect(await searchPath("/bin/sh", launchd)).toEqual(longer);
});

test.each([
  ["does not exist", () => "/nowhere/shell"],
  ["is no shell", () => "/bin/false"],
  ["says nothing", () => shellOf("exit 0")],
  ["says half of it", () => shellOf(`printf '%s' "$2" | head -c 20`)],
  ["floods", () => shellOf("yes | head -c 3000000")],
])("a shell that %s changes nothing", async (_, make) => {
  expect(await searchPath("claude", { HOME: home, PATH: bare, SHELL: make() })).toEqual({
    path: bare,
    shell: null,
  });
});

test("a shell that never answers is killed with what it has started", async () => {
  const pid = join(home, "pid");
  const env = { HOME: home, PATH: bare, SHELL: shellOf(`sleep 1000 & echo $! > ${pid}; wait`) };
  expect(await searchPath("claude", env)).toEqual({ path: bare, shell: null });
  await until(() => !isAlive(Number(readFileSync(pid, "utf8"))));
});

test("what rc files have started does not hold up the answer, and stays", async () => {
  const pid = join(home, "pid");
  profile(`sleep 1000 & echo $! > ${pid}\n${noisy()}`);
  const env = { HOME: home, PATH: bare, SHELL: "/bin/bash" };
  expect((await searchPath("claude", env)).path).toBe(`${tools}:${bare}`);
  const started = Number(readFileSync(pid, "utf8"));
  expect(isAlive(started)).toBe(true);
  process.kill(started, "SIGKILL");
});

/** A program that is taken for a shell. */
function shellOf(script: string): string {
  const path = join(home, "shell");
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
  return path;
}

function isAlive(pid: number): boolean {
  // Nobody may be there to take note of the end of an orphan.
  const { stdout } = Bun.spawnSync(["ps", "-o", "stat=", "-p", String(pid)]);
  return /^[^Z]/.test(stdout.toString().trim());
}
