import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { help, loadConfig, settingsOf } from "../src/config.ts";
import { flagOf, options } from "../src/contract/options.ts";
import { version } from "../src/version.ts";
import { scratch } from "./support/app.ts";

setDefaultTimeout(60_000);

const rows = Object.entries(options);
const home = { HOME: "/nowhere" };

/** Loads a configuration whose file has this text. */
async function withFile(
  yaml: string,
  { argv = [], env = {} }: { argv?: string[]; env?: Record<string, string> } = {},
) {
  await using stack = new AsyncDisposableStack();
  const path = join(await scratch(stack), "settings.yaml");
  await Bun.write(path, yaml);
  return loadConfig(["--config", path, ...argv], { ...home, ...env });
}

/** The problems that a configuration is refused with. */
async function problems(load: () => unknown): Promise<string[]> {
  try {
    await load();
  } catch (error) {
    const [title, ...lines] = String(error).split("\n  ");
    expect(title).toBe("ConfigError: Cannot load the configuration:");
    return lines;
  }
  return [];
}

/** Runs the real program to its end. */
async function run(...argv: string[]) {
  await using stack = new AsyncDisposableStack();
  const folder = await scratch(stack);
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "../src/main.ts"), ...argv], {
    cwd: folder,
    env: { PATH: process.env["PATH"], HOME: folder, PA_EXECUTION_TIMEOUT: "soon" },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [code, out, err] = await Promise.all([
    child.exited,
    child.stdout.text(),
    child.stderr.text(),
  ]);
  return { code, out, err };
}

test("with nothing given every setting has the default of its row", () => {
  const config = loadConfig([], home);
  expect(Object.keys(config)).toEqual(Object.keys(options));
  expect(config).toMatchObject({
    host: "0.0.0.0",
    tlsEnabled: true,
    tlsMinVersion: "1.2",
    authMode: "ssh",
    insecure: false,
    port: 8443,
    executionTimeout: 300_000,
    minFreeDisk: 268_435_456,
    messageSize: 1_048_576,
    projectRoots: null,
    claudeSshAgent: true,
  });
});

test("a flag goes before the environment, that before the file, that before the default", async () => {
  const yaml = "server:\n  port: 1001\n";
  const env = { PA_SERVER_PORT: "1002" };
  const argv = ["--port", "1003"];
  expect((await withFile(yaml, { argv, env })).port).toBe(1003);
  expect((await withFile(yaml, { env })).port).toBe(1002);
  expect((await withFile(yaml)).port).toBe(1001);
  expect((await withFile("")).port).toBe(8443);
});

test("each setting can come from all three sources, by the names of its row", async () => {
  for (const [name, { file, env, default: value }] of rows) {
    if (value === null) continue;
    const text = String(value);
    const tree = file.split(".").reduceRight<unknown>((inner, key) => ({ [key]: inner }), value);
    const configs = [
      loadConfig([`--${flagOf(name)}=${text}`], home),
      loadConfig([], { ...home, [env]: text }),
      await withFile(JSON.stringify(tree)),
    ];
    for (const config of configs) expect(config).toEqual(loadConfig([], home));
  }
});

test("every problem is told at once, each with its source", async () => {
  const yaml = "server: { port: many, prot: 1 }\nlogging: { level: loud }\n";
  const env = { PA_EXECUTION_TIMEOUT: "soon", PA_PORT: "1", PA_MAX_PROJECTS: "0" };
  const argv = ["--idle-timeout", "-5s", "--prot", "stray"];
  const told = await problems(() => withFile(yaml, { argv, env }));
  expect(
    told.map((line) => line.replace(/ in \/\S+settings\.yaml/, " in FILE")).toSorted(),
  ).toEqual(
    [
      "--prot: unknown argument",
      "stray: unknown argument",
      "server.prot in FILE: unknown setting",
      "PA_PORT: unknown setting",
      'server.port in FILE: Expected a whole number, not "many"',
      'logging.level in FILE: Expected debug, info, warn or error, not "loud"',
      'PA_MAX_PROJECTS: Expected 1 or more, not "0"',
      'PA_EXECUTION_TIMEOUT: Expected a duration such as 500ms, 30s, 5m or 1h, not "soon"',
      '--idle-timeout: Expected a duration such as 500ms, 30s, 5m or 1h, not "-5s"',
    ].toSorted(),
  );
});

test("a value that a better source overrides is not looked at", () => {
  expect(loadConfig(["--port=1"], { ...home, PA_SERVER_PORT: "many" }).port).toBe(1);
});

test.each([
  ["500ms", 500],
  ["30s", 30_000],
  ["5m", 300_000],
  ["1h", 3_600_000],
  ["2d", 172_800_000],
  ["1.5s", 1_500],
  ["1 S", 1_000],
  ["250", 250],
  ["0", 0],
])("a duration of %s is %d ms", (given, ms) => {
  expect(loadConfig([`--execution-timeout=${given}`], home).executionTimeout).toBe(ms);
});

test.each([
  ["1048576", 1_048_576],
  ["1MB", 1_048_576],
  ["64kb", 65_536],
  ["0.5 GB", 536_870_912],
  ["2048B", 2_048],
])("a size of %s is %d bytes", (given, bytes) => {
  expect(loadConfig([`--message-size=${given}`], home).messageSize).toBe(bytes);
});

test.each([
  ["--execution-timeout", ["", "x", "1w", "s", "1e3", "5 minutes", "-1s", "NaN", "Infinity"]],
  ["--message-size", ["", "-1", "1TB", "MB", "1,000", "0x10", "1023", "999999999GB"]],
  ["--port", ["", "-1", "65536", "1.5", "http", "8443/tcp", "NaN", "Infinity"]],
  ["--log-level", ["", "INFO", "verbose", "trace"]],
  ["--insecure", ["", "yes", "1", "on"]],
  ["--claude-permission-mode", ["", "yolo", "Default"]],
  ["--claude-model", ["", "-opus", "a b", "--settings={}"]],
])("%s refuses what it cannot mean: %p", async (flag, wrong) => {
  for (const value of wrong) {
    expect(await problems(() => loadConfig([`${flag}=${value}`], home))).toHaveLength(1);
  }
});

test("a boolean is set by its flag alone, by --no-, by =false and by the word", async () => {
  const insecure = (...argv: string[]) => loadConfig(argv, home).insecure;
  expect(insecure()).toBe(false);
  expect(insecure("--insecure")).toBe(true);
  expect(insecure("--insecure=true")).toBe(true);
  expect(insecure("--insecure=false")).toBe(false);
  expect(insecure("--insecure", "--no-insecure")).toBe(false);
  expect(loadConfig(["--no-claude-ssh-agent"], home).claudeSshAgent).toBe(false);
  expect(loadConfig([], { ...home, PA_INSECURE: "TRUE" }).insecure).toBe(true);
  expect((await withFile("insecure: true")).insecure).toBe(true);
  expect(await problems(() => loadConfig(["--no-port"], home))).toEqual([
    "--no-port: unknown argument",
  ]);
});

test("what stands after a boolean flag is not its value", async () => {
  expect(await problems(() => loadConfig(["--insecure", "false"], home))).toEqual([
    "false: unknown argument",
  ]);
});

test("a flag without its value is a problem, and may have one that begins with dashes", async () => {
  expect(await problems(() => loadConfig(["--host"], home))).toEqual(["--host: Expected a value"]);
  expect(await problems(() => loadConfig(["--port", "--insecure"], home))).toEqual([
    '--port: Expected a whole number, not "--insecure"',
  ]);
});

test("what is secret is never shown, not even when it is wrong", async () => {
  const secret = "canary-5d1f";
  const settings = {
    PA_CLAUDE_ENV: `TOKEN=${secret}`,
    PA_NOTIFY_WEBHOOK: `https://example.com/${secret}`,
    PA_NOTIFY_NTFY: `https://ntfy.sh/${secret}`,
    PA_NOTIFY_NTFY_TOKEN: secret,
  };
  const shown = settingsOf([], { ...home, ...settings });
  expect(JSON.stringify(shown)).not.toContain(secret);
  expect(shown).toContainEqual({
    file: "notify.webhook",
    value: "(set)",
    source: "PA_NOTIFY_WEBHOOK",
  });
  const wrong = Object.keys(settings).map((name) => [name, `- ${secret}`]);
  const told = await problems(() => loadConfig([], { ...home, ...Object.fromEntries(wrong) }));
  expect(told).toHaveLength(4);
  expect(told.join()).not.toContain(secret);
});

test("places to notify are addresses, and a token needs one that nobody can listen to", async () => {
  const token = { PA_NOTIFY_NTFY_TOKEN: "tk_x" };
  for (const env of [
    { PA_NOTIFY_WEBHOOK: "example.com/hook" },
    { PA_NOTIFY_WEBHOOK: "file:///etc/passwd" },
    { PA_NOTIFY_NTFY: "https://ntfy.sh" },
    { PA_NOTIFY_PUSH_SERVICES: "https://example.com" },
    { PA_NOTIFY_PUSH_CONTACT: "somebody" },
    { PA_NOTIFY_TIMEOUT: "0s" },
    { ...token },
    { ...token, PA_NOTIFY_NTFY: "http://example.com/topic" },
  ])
    expect(await problems(() => loadConfig([], { ...home, ...env }))).toHaveLength(1);
  for (const env of [
    { ...token, PA_NOTIFY_NTFY: "https://ntfy.sh/topic" },
    { ...token, PA_NOTIFY_NTFY: "http://127.0.0.1:8080/topic" },
    { ...token, PA_NOTIFY_NTFY: "http://[::1]:8080/topic" },
    { ...token, PA_NOTIFY_NTFY: "http://example.com/topic", PA_INSECURE: "true" },
    { PA_NOTIFY_WEBHOOK: "http://192.168.1.5:8123/api/webhook/x" },
    { PA_NOTIFY_PUSH_SERVICES: "push.example.com:8443,*.Example.org" },
    { PA_NOTIFY_PUSH_CONTACT: "mailto:me@example.org" },
  ])
    expect(await problems(() => loadConfig([], { ...home, ...env }))).toEqual([]);
});

test("commas separate the items of a list, but not inside of parentheses", async () => {
  const rules = ["Bash(git log:*, git diff:*)", "Read", "mcp__a__b"];
  const text = rules.join(" , ");
  expect(loadConfig([`--claude-allowed-tools=${text}`], home).claudeAllowedTools).toEqual(rules);
  const { claudeAllowedTools } = loadConfig([], { ...home, PA_CLAUDE_ALLOWED_TOOLS: text });
  expect(claudeAllowedTools).toEqual(rules);
  const yaml = `claude: { allowed_tools: ${JSON.stringify(rules)} }`;
  expect((await withFile(yaml)).claudeAllowedTools).toEqual(rules);
  expect((await withFile(`claude: { allowed_tools: "${text}" }`)).claudeAllowedTools).toEqual(
    rules,
  );
});

test("an item of a list that is none is a problem", async () => {
  const argv = [
    "--claude-allowed-tools=Read,rm -rf",
    "--project-roots=/srv,home",
    "--claude-env=A",
  ];
  expect(await problems(() => loadConfig(argv, home))).toHaveLength(3);
  expect(await problems(() => withFile("projects: { roots: [1] }"))).toHaveLength(1);
});

test("a file that is named must be there, whoever names it", async () => {
  const missing = expect.stringMatching(/^\/nowhere\/a\.yaml: there is no such file/);
  expect(await problems(() => loadConfig(["--config", "/nowhere/a.yaml"], home))).toEqual([
    missing,
  ]);
  const env = { ...home, PA_CONFIG: "/nowhere/a.yaml" };
  expect(await problems(() => loadConfig([], env))).toEqual([missing]);
});

test("a file that is no YAML, or no map, is a problem and not a crash", async () => {
  for (const yaml of ["server: [", "- 1\n- 2", "just text", "42", "server: 5", "a: &a [*a]"])
    expect((await problems(() => withFile(yaml))).length).toBeGreaterThan(0);
});

test("an empty file, and a section with nothing in it, set nothing", async () => {
  for (const yaml of ["", "# nothing\n", "server:\n", "server: {}\n", "server:\n  port:\n"])
    expect((await withFile(yaml)).port).toBe(8443);
});

test("the platform's folders are used, and the XDG variables if they are absolute", async () => {
  await using stack = new AsyncDisposableStack();
  const HOME = await scratch(stack);
  if (process.platform === "darwin") {
    const { dataDir } = loadConfig([], { HOME });
    expect(dataDir).toBe(join(HOME, "Library/Application Support/pocket-agent"));
    return;
  }
  await Bun.write(join(HOME, ".config/pocket-agent/config.yaml"), "server: { port: 1 }");
  await Bun.write(join(HOME, "xdg$&/pocket-agent/config.yaml"), "server: { port: 2 }");
  expect(loadConfig([], { HOME })).toMatchObject({
    port: 1,
    dataDir: join(HOME, ".local/share/pocket-agent"),
  });
  const XDG = join(HOME, "xdg$&");
  expect(loadConfig([], { HOME, XDG_CONFIG_HOME: XDG, XDG_DATA_HOME: XDG })).toMatchObject({
    port: 2,
    dataDir: join(XDG, "pocket-agent"),
  });
  for (const wrong of ["", "relative", "./here"])
    expect(loadConfig([], { HOME, XDG_CONFIG_HOME: wrong, XDG_DATA_HOME: wrong })).toMatchObject({
      port: 1,
      dataDir: join(HOME, ".local/share/pocket-agent"),
    });
});

test("a configuration or data folder where the server is started counts only when it is named", async () => {
  await using stack = new AsyncDisposableStack();
  const HOME = await scratch(stack);
  await Bun.write(join(HOME, "here/config.yaml"), "server: { port: 1 }");
  const module = JSON.stringify(join(import.meta.dir, "../src/config.ts"));
  const script = join(HOME, "load.ts");
  await Bun.write(
    script,
    `import { loadConfig } from ${module};
    console.log(JSON.stringify(loadConfig(process.argv.slice(2), { HOME: process.env["HOME"] })));`,
  );
  const load = async (...argv: string[]) => {
    const child = Bun.spawn([process.execPath, script, ...argv], {
      cwd: join(HOME, "here"),
      env: { HOME },
      stdout: "pipe",
    });
    return JSON.parse(await child.stdout.text());
  };
  const { port, dataDir } = await load();
  expect(port).toBe(8443);
  expect(dataDir).not.toStartWith(join(HOME, "here"));
  expect(await load("--config", "config.yaml", "--data-dir", "data")).toMatchObject({
    port: 1,
    dataDir: join(HOME, "here/data"),
  });
});

test("a file that cannot be read is a problem that names it", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = await scratch(stack);
  const told = await problems(() => loadConfig(["--config", folder], home));
  expect(told).toEqual([expect.stringContaining(folder)]);
});

test("without TLS only a loopback address is served, unless that is accepted", async () => {
  const plain = { ...home, PA_TLS_ENABLED: "false" };
  for (const host of ["127.0.0.1", "127.9.8.7", "::1", "localhost"])
    expect(loadConfig([`--host=${host}`], plain).host).toBe(host);
  for (const host of ["0.0.0.0", "::", "192.168.1.2", "example.com", "127.0.0.1.example.com"]) {
    expect(await problems(() => loadConfig([`--host=${host}`], plain))).toEqual([
      expect.stringContaining("loopback"),
    ]);
    expect(loadConfig([`--host=${host}`, "--insecure"], plain).host).toBe(host);
  }
});

test("everybody is let in only if that is accepted, on loopback too", async () => {
  const argv = ["--auth-mode=none", "--host=127.0.0.1"];
  expect(await problems(() => loadConfig(argv, home))).toEqual([
    expect.stringContaining("auth.mode"),
  ]);
  expect(loadConfig([...argv, "--insecure"], home).authMode).toBe("none");
});

test("a certificate and its key are named together or not at all", async () => {
  for (const argv of [["--tls-cert=/c.pem"], ["--tls-key=/k.pem"]])
    expect(await problems(() => loadConfig(argv, home))).toEqual([
      expect.stringContaining("server.tls.key"),
    ]);
  const both = loadConfig(["--tls-cert=/c.pem", "--tls-key=/k.pem"], home);
  expect(both).toMatchObject({ tlsCert: "/c.pem", tlsKey: "/k.pem" });
});

test("data inside a git work tree is refused unless it is named", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = await scratch(stack);
  await Bun.write(join(folder, ".git"), "gitdir: elsewhere");
  const env = { HOME: folder };
  expect(await problems(() => loadConfig([], env))).toEqual([
    expect.stringContaining(`git work tree ${folder}`),
  ]);
  const dataDir = join(folder, "data");
  expect(loadConfig(["--data-dir", dataDir], env).dataDir).toBe(dataDir);
  expect(loadConfig([], { ...env, PA_DATA_DIR: dataDir }).dataDir).toBe(dataDir);
});

test("what switches TLS and authentication off is accepted", () => {
  const env = { ...home, PA_TLS_ENABLED: "false", PA_AUTH_MODE: "none", PA_INSECURE: "true" };
  expect(loadConfig([], env)).toMatchObject({
    tlsEnabled: false,
    authMode: "none",
    insecure: true,
  });
});

test("help has every setting with its flag, its variable and what it is about", () => {
  for (const [name, { env, about }] of rows) {
    expect(help({})).toContain(`\n  --${flagOf(name)}\n      ${about} [${env}`);
  }
});

test("the program exits 2 and lists every problem when the configuration is wrong", async () => {
  const { code, out, err } = await run("--port", "x");
  expect({ code, out }).toEqual({ code: 2, out: "" });
  expect(err).toContain('--port: Expected a whole number, not "x"');
  expect(err).toContain("PA_EXECUTION_TIMEOUT: Expected a duration");
});

test("the program exits 2 on a command that there is not", async () => {
  const { code, out, err } = await run("sevre");
  expect({ code, out }).toEqual({ code: 2, out: "" });
  expect(err).toContain('Cannot run "sevre": there is no such command');
});

test("--help and --version answer and exit 0, even when the configuration is wrong", async () => {
  const [helped, versioned] = await Promise.all([run("--help"), run("--version")]);
  expect(helped).toMatchObject({ code: 0, err: "" });
  for (const line of help({}).split("\n")) expect(helped.out).toContain(line);
  expect(helped.out).toContain("\n  devices  List, rename and revoke");
  expect(versioned).toMatchObject({ code: 0, err: "" });
  expect(versioned.out).toStartWith(`pocket-agent-server ${version} (`);
});
