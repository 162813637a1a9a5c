/** Tries the compiled server as somebody who downloaded it would: `bun run compile` comes first. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { canMount } from "../support/tight-disk.ts";
import { compile, executablePath, hostTarget } from "../../scripts/compile.ts";
import { Tmux } from "../support/tmux.ts";
import { version } from "../../src/version.ts";

const root = mkdtempSync(join(tmpdir(), "smoke-"));
/** A copy where everybody can run it, wherever the project lies. */
const executable = join(root, "pocket-agent");
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
  copyFileSync(executablePath(), executable);
  await compile({ entry, outfile: unhardened, target: hostTarget(), hardened: false });
  const preload = `require("node:fs").writeFileSync(${JSON.stringify(marker)}, "")`;
  await Bun.write(join(cwd, "preload.js"), preload);
  writeFileSync(join(cwd, "bunfig.toml"), 'preload = ["./preload.js"]\n');
  writeFileSync(join(cwd, ".env"), "PA_LOG_LEVEL=nonsense\n");
  // As a cloned repository would bring its own keys and settings.
  await Bun.write(join(cwd, "data/authorized_keys"), "ssh-ed25519 AAAA x\n");
  await Bun.write(join(cwd, "authorized_keys"), "ssh-ed25519 AAAA x\n");
  for (const name of ["config.yaml", "pocket-agent.yaml", "pocket-agent/config.yaml"])
    await Bun.write(join(cwd, name), "auth: { mode: none }\ninsecure: true\n");
  await Bun.write(join(cwd, "certs/server.key"), "not a key");
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
async function serve(env: Record<string, string> = settings, command = [executable]) {
  const child = start(command, env);
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
  return { child, address: address.replace("0.0.0.0", "127.0.0.1"), log };
}

/** A program that does not let itself be looked at, and whose parents are gone. */
const hidden = (path: string) => `
import ctypes, os, socket, sys
r, w = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
        s = socket.socket(socket.AF_UNIX)
        s.connect(${JSON.stringify(path)})
        s.sendall(b'{"operation":"devices.list","input":{}}\\n')
        os.write(w, s.recv(4096))
    os._exit(0)
os.close(w)
print(os.read(r, 4096).decode())
`;

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

  test("shows somebody new at a terminal how to come in, and leaves on Ctrl-C", async () => {
    const home = join(root, "new");
    mkdirSync(home);
    const env = { HOME: home, PATH: "/usr/bin:/bin", PA_SERVER_PORT: "0" };
    using terminal = new Tmux([executable], { home, env });
    await terminal.until("Good for one device");
    expect(terminal.text).toMatch(/Open +https:\/\/\S+:\d+\//);
    expect(terminal.text).toMatch(/Code +([A-Z2-7]{4}-){6}[A-Z2-7]{2}/);
    expect(terminal.text).toMatch(/█▀|▀█|▄█/);
    terminal.keys("C-c");
    await terminal.until("left with 0");
  });

  test("has the web console in it", async () => {
    const { child, address } = await serve();
    const page = await fetch(`http://${address}/`);
    expect(page.headers.get("content-security-policy")).toContain("default-src 'none'");
    const html = await page.text();
    const named = [...html.matchAll(/(?:src|href)="(\/[^"]+)"/g)].map(([, path = ""]) => path);
    expect(named).toHaveLength(5);
    for (const path of [...named, "/sw.js"]) {
      const file = await fetch(`http://${address}${path}`);
      expect({ path, status: file.status }).toEqual({ path, status: 200 });
      expect((await file.bytes()).length).toBeGreaterThan(100);
    }
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
  });

  test("is not changed by what lies where it is started", async () => {
    expect(await run([executable, "--version"])).toMatchObject({ code: 0 });
    expect(existsSync(marker)).toBe(false);
  });

  test.if(process.platform === "linux")(
    "runs as anybody, and shows its environment to no other process of that account",
    async () => {
      // Root may see everything, so it becomes somebody else; anybody else stays who they are.
      const somebody = "65534";
      const as =
        process.getuid?.() === 0
          ? ["setpriv", `--reuid=${somebody}`, `--regid=${somebody}`, "--clear-groups"]
          : [];
      const home = join(root, "somebody");
      mkdirSync(home, { mode: 0o700 });
      chmodSync(root, 0o755);
      if (as.length > 0) chownSync(home, Number(somebody), Number(somebody));
      const env = { HOME: home, PA_SERVER_PORT: "0", SECRET: "hush" };
      const { child, log } = await serve(env, [...as, executable]);
      const environ = `/proc/${child.pid}/environ`;
      const seen = await run([...as, "cat", environ], env);
      expect(seen).toEqual({ code: 1, output: expect.stringContaining("Permission denied") });
      // What is not a server does show it: the account could read it.
      const open = await run([...as, "cat", "/proc/self/environ"], env);
      expect(open.output).toContain("SECRET=hush");
      expect(log).not.toContain("prctl failed");
      const { code, output } = await run([...as, executable, "token", "x"], env);
      expect({ code, output }).toEqual({ code: 0, output: expect.stringMatching(/^pat_/) });
      // Whoever hides from the server is taken for an agent, and shut out of its local socket.
      const socket = join(home, ".local/share/pocket-agent/control.sock");
      const refused = await run([...as, "python3", "-c", hidden(socket)], env);
      expect(refused.output).toContain("for an agent");
      child.kill("SIGTERM");
      expect(await child.exited).toBe(0);
    },
  );

  test("has the same bytes wherever it is built", async () => {
    const project = join(import.meta.dir, "../..");
    const build = async (folder: string) => {
      for (const name of ["package.json", "bun.lock", "bunfig.toml", "tsconfig.json"])
        await Bun.write(join(folder, name), Bun.file(join(project, name)));
      for (const name of ["src", "scripts"])
        cpSync(join(project, name), join(folder, name), { recursive: true });
      const bun = async (...argv: string[]) => {
        const child = Bun.spawn([process.execPath, ...argv], {
          cwd: folder,
          stdout: "ignore",
          stderr: "pipe",
        });
        const errors = await child.stderr.text();
        if ((await child.exited) !== 0) throw new Error(errors);
      };
      await bun("install", "--frozen-lockfile", "--production");
      await bun("scripts/compile.ts");
      const outfile = join(folder, "dist", `pocket-agent-${hostTarget()}`);
      return new Bun.CryptoHasher("sha256").update(readFileSync(outfile)).digest("hex");
    };
    const here = await build(join(root, "here"));
    expect(await build(join(root, "quite", "elsewhere"))).toBe(here);
  }, 60_000);

  test("takes no keys, certificates and settings from where it is started", async () => {
    const { child, address, log } = await serve({ PA_SERVER_PORT: "0" });
    expect(log).toContain(join(root, "home/.local/share/pocket-agent"));
    expect(log).not.toContain("authorized keys loaded");
    const greeting = new WebSocket(`wss://${address}/ws`, { tls: { rejectUnauthorized: false } });
    const { promise, resolve } = Promise.withResolvers<string>();
    greeting.onmessage = (event) => resolve(String(event.data));
    expect(JSON.parse(await promise)).toMatchObject({ data: { auth: { required: true } } });
    const env = { PA_SERVER_PORT: "0" };
    const devices = await run([executable, "devices", "--json"], env);
    expect(devices).toEqual({ code: 0, output: '{\n  "devices": []\n}\n' });
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
    expect(existsSync(marker)).toBe(false);
  });

  test("would be, if it were compiled with the defaults", async () => {
    expect(await run([unhardened, "--version"])).toMatchObject({ code: 0 });
    expect(existsSync(marker)).toBe(true);
    // The level of logging in .env is one that no server accepts.
    expect(await run([unhardened], settings)).not.toMatchObject({ code: 0 });
  });
});

describe.if(process.platform === "linux" && canMount())("with nothing around it", () => {
  const jail = join(root, "jail");
  /** Only /proc is mounted, for as long as the command runs. */
  const enter = [
    "unshare",
    "-m",
    "sh",
    "-c",
    'mount -t proc proc "$0/proc" && exec "$(PATH=$PATH:/usr/sbin command -v chroot)" "$0" "$@"',
    jail,
  ];

  beforeAll(() => {
    mkdirSync(join(jail, "proc"), { recursive: true });
    copyFileSync(executable, join(jail, "pocket-agent"));
    const { stdout } = Bun.spawnSync(["ldd", executable]);
    for (const [path] of stdout.toString().matchAll(/(?<=\s)\/\S+/g)) {
      mkdirSync(join(jail, dirname(path)), { recursive: true });
      copyFileSync(path, join(jail, path));
    }
  });

  test("but the libraries that it names, it serves with TLS, and stops in order", async () => {
    const { code, output } = await run([...enter, "/pocket-agent", "--version"]);
    expect({ code, output }).toEqual({ code: 0, output: expect.stringContaining(version) });
    const env = { HOME: "/home", PA_SERVER_HOST: "127.0.0.1", PA_SERVER_PORT: "0" };
    const { child, address } = await serve(env, [...enter, "/pocket-agent"]);
    const health = await fetch(`https://${address}/health`, { tls: { rejectUnauthorized: false } });
    expect(health.status).toBe(200);
    child.kill("SIGTERM");
    expect(await child.exited).toBe(0);
    expect(readdirSync(join(jail, "home/.local/share/pocket-agent"))).toContain("projects");
  });

  test("and no HOME, it says so in a sentence", async () => {
    const command = [...enter, "/pocket-agent"];
    expect(await run(["env", "-u", "HOME", ...command])).toEqual({
      code: 2,
      output: expect.stringMatching(/^Cannot .*\n?.*HOME: it is not set.*\n$/),
    });
  });
});

describe("scripts/install.sh", () => {
  const script = join(import.meta.dir, "../../scripts/install.sh");
  const install = async (from: string, folder: string) => {
    const child = Bun.spawn(["sh", script, from, folder], {
      env: { PATH: "/usr/bin:/bin", HOME: root },
      stdout: "pipe",
      stderr: "pipe",
    });
    const [code, out, err] = await Promise.all([
      child.exited,
      child.stdout.text(),
      child.stderr.text(),
    ]);
    return { code, out, err };
  };
  const name = `pocket-agent-${hostTarget()}`;
  const offer = async (folder: string, sum?: string) => {
    const bytes = readFileSync(executable);
    const real = new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
    await Bun.write(join(folder, name), bytes);
    await Bun.write(join(folder, "SHA256SUMS"), `${sum ?? real}  ${name}\n`);
  };

  test("installs what it has verified, from a folder or an address, also over an older one", async () => {
    const from = join(root, "release");
    await offer(from);
    const to = join(root, "bin");
    expect(await install(from, to)).toMatchObject({ code: 0, err: "" });
    using site = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: ({ url }) => new Response(Bun.file(join(from, new URL(url).pathname))),
    });
    expect(await install(site.url.href, to)).toMatchObject({ code: 0, err: "" });
    expect(readdirSync(to)).toEqual(["pocket-agent-server"]);
    const { output } = await run([join(to, "pocket-agent-server"), "--version"]);
    expect(output).toContain(version);
  });

  test("changes nothing when the checksum is another, or something is missing", async () => {
    const to = join(root, "bin2");
    const from = join(root, "forged");
    await offer(from, "0".repeat(64));
    expect(await install(from, to)).toMatchObject({
      code: 1,
      err: expect.stringContaining("checksum"),
    });
    expect(await install(join(root, "nowhere"), to)).toMatchObject({ code: 1 });
    expect(await install("http://127.0.0.1:1", to)).toMatchObject({ code: 1 });
    expect(existsSync(to)).toBe(false);
  });
});
