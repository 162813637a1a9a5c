/** Tries the compiled server as somebody who downloaded it would: `bun run compile` comes first. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compile, executablePath, hostTarget } from "../../scripts/compile.ts";
import { version } from "../../src/version.ts";

const executable = executablePath();
const root = mkdtempSync(join(tmpdir(), "smoke-"));
const unhardened = join(root, "unhardened");
const cwd = join(root, "hostile");
const marker = join(root, "marker");
const settings = {
  PA_SERVER_HOST: "127.0.0.1",
  PA_SERVER_PORT: "0",
  PA_DATA_DIR: join(root, "data"),
  PA_TLS_ENABLED: "false",
  PA_AUTH_MODE: "none",
  PA_INSECURE: "true",
  PA_LOG_FORMAT: "json",
};
const children = new Set<Bun.Subprocess>();

beforeAll(async () => {
  const entry = join(import.meta.dir, "../../src/main.ts");
  await compile({ entry, outfile: unhardened, target: hostTarget(), hardened: false });
  const preload = `require("node:fs").writeFileSync(${JSON.stringify(marker)}, "")`;
  await Bun.write(join(cwd, "preload.js"), preload);
  writeFileSync(join(cwd, "bunfig.toml"), 'preload = ["./preload.js"]\n');
  writeFileSync(join(cwd, ".env"), "PA_LOG_LEVEL=nonsense\n");
});
afterEach(async () => {
  rmSync(marker, { force: true });
  for (const child of children) child.kill("SIGKILL");
  await Promise.all([...children].map((child) => child.exited));
  children.clear();
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

function start(command: readonly string[], env: Record<string, string> = {}) {
  const child = Bun.spawn([...command], {
    cwd,
    env: { PATH: "/usr/bin:/bin", HOME: join(root, "home"), ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  children.add(child);
  return child;
}

async function run(
  command: readonly string[],
  env?: Record<string, string>,
): Promise<{ code: number; output: string }> {
  const child = start(command, env);
  const [code, output, errors] = await Promise.all([
    child.exited,
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ]);
  return { code, output: output || errors };
}

/** Serves on a free port; resolves with its address, which it logs, and the rest of its life. */
async function serve() {
  const child = start([executable], settings);
  const decoder = new TextDecoder();
  let log = "";
  let address: string | undefined;
  const reader = child.stdout.getReader();
  while (address === undefined) {
    const { done, value } = await reader.read();
    if (done) throw new Error(`It ended: ${log}${await new Response(child.stderr).text()}`);
    log += decoder.decode(value, { stream: true });
    for (const line of log.split("\n").slice(0, -1)) {
      const { msg, url } = JSON.parse(line);
      if (msg === "listening") address = new URL(url).host;
    }
  }
  reader.releaseLock();
  return { child, address };
}

describe("the compiled server", () => {
  test("--version and --help say what it is", async () => {
    const [about, help] = await Promise.all([
      run([executable, "--version"]),
      run([executable, "--help"]),
    ]);
    expect(about).toEqual({ code: 0, output: expect.stringContaining(version) });
    expect(help).toEqual({ code: 0, output: expect.stringContaining("PA_DATA_DIR") });
  });

  test("serves, greets, and stops in order on SIGTERM", async () => {
    const { child, address } = await serve();
    const health = await fetch(`http://${address}/health`);
    expect(health.status).toBe(200);
    await health.body?.cancel();

    const socket = new WebSocket(`ws://${address}/ws`);
    const { promise: first, resolve, reject } = Promise.withResolvers<string>();
    socket.onmessage = (event) => resolve(String(event.data));
    socket.onerror = () => reject(new Error("the connection failed"));
    expect(JSON.parse(await first)).toMatchObject({
      type: "hello",
      data: { protocol: 1, server: { version } },
    });

    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
    expect(existsSync(marker)).toBe(false);
  });

  test("is not changed by what lies where it is started", async () => {
    expect(await run([executable, "--version"])).toMatchObject({ code: 0 });
    expect(existsSync(marker)).toBe(false);
  });

  test("would be, if it were compiled with the defaults", async () => {
    expect(await run([unhardened, "--version"])).toMatchObject({ code: 0 });
    expect(existsSync(marker)).toBe(true);
    // The level of logging in .env is one that no server accepts.
    expect(await run([unhardened], settings)).not.toMatchObject({ code: 0 });
  });
});
