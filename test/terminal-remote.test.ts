import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, statSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { scratch, testApp, type TestApp } from "./support/app.ts";
import { environmentOf, main, Reader, runCommand, spawnCommand } from "./support/cli.ts";
import { ServerProcess } from "./support/server-process.ts";
import { run, SshLab } from "./support/ssh-lab.ts";
import { Tmux } from "./support/tmux.ts";

setDefaultTimeout(60_000);

const secured = { PA_AUTH_MODE: "ssh", PA_TLS_ENABLED: "true", PA_INSECURE: "false" };
const lab = new SshLab();
afterAll(() => lab[Symbol.dispose]());
const laptop = lab.key("ed25519");
const stranger = lab.key("ecdsa", 256);

async function letIn({ home }: TestApp): Promise<void> {
  const { code } = await runCommand(["keys", "import", `${laptop.path}.pub`], { home });
  expect(code).toBe(0);
}

/** Somebody on another machine: another home, without a server. */
async function traveller(server: TestApp) {
  const home = join(server.home, "elsewhere");
  await mkdir(home, { recursive: true });
  const url = `wss://127.0.0.1:${server.url.port}`;
  const path = await server.directory("afar");
  return { home, url, path, fingerprint: server.app.access.serverId };
}

test("run --url logs in with a key from a file, at the server whose fingerprint is given", async () => {
  await using server = await testApp(secured);
  await letIn(server);
  const { home, url, path, fingerprint } = await traveller(server);
  const argv = ["run", path, "say:from afar", "--url", url, "--identity", laptop.path];
  const result = await runCommand([...argv, "--fingerprint", fingerprint], { home });
  expect(result).toEqual({ code: 0, out: "from afar\n", err: "" });
  const told = await runCommand(
    ["logs", "afar", "--url", url, "--identity", laptop.path, "--fingerprint", fingerprint],
    { home },
  );
  expect(told).toMatchObject({ code: 0, out: expect.stringContaining("from afar") });
});

test("run --url uses the first key of a real ssh-agent", async () => {
  await using server = await testApp(secured);
  await letIn(server);
  const { home, url, path, fingerprint } = await traveller(server);
  const socket = join(home, "agent.sock");
  const agent = Bun.spawn(["ssh-agent", "-D", "-a", socket], { stdout: "ignore" });
  try {
    while (!existsSync(socket)) await Bun.sleep(10);
    const env = { SSH_AUTH_SOCK: socket };
    const argv = ["run", path, "say:by agent", "--url", url, "--fingerprint", fingerprint];
    const empty = await runCommand(argv, { home, env });
    expect(empty).toMatchObject({ code: 1, err: expect.stringContaining("--identity") });
    const added = Bun.spawnSync(["ssh-add", "-q", laptop.path], {
      env: { ...process.env, ...env },
    });
    expect(added.exitCode).toBe(0);
    const result = await runCommand(argv, { home, env });
    expect(result).toEqual({ code: 0, out: "by agent\n", err: "" });
  } finally {
    agent.kill();
  }
});

test("run --url takes a token from the environment", async () => {
  await using server = await testApp(secured);
  const { home, url, path, fingerprint } = await traveller(server);
  const { out: token } = await runCommand(["token", "script"], { home: server.home });
  const argv = ["run", path, "say:with a token", "--url", url, "--fingerprint", fingerprint];
  const env = { POCKET_AGENT_TOKEN: token.trim() };
  expect(await runCommand(argv, { home, env })).toMatchObject({ code: 0, out: "with a token\n" });
  const wrong = { POCKET_AGENT_TOKEN: "pat_wrong" };
  expect(await runCommand(argv, { home, env: wrong })).toMatchObject({
    code: 1,
    err: expect.stringContaining("Cannot log in"),
  });
});

test("a key that the server does not know is told how it could be let in", async () => {
  await using server = await testApp(secured);
  const { home, url, path, fingerprint } = await traveller(server);
  const argv = ["run", path, "x", "--url", url, "--identity", stranger.path];
  const { code, err } = await runCommand([...argv, "--fingerprint", fingerprint], { home });
  expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining("keys import") });
});

test("a server is not trusted with another key than the given one, and nothing is said to it", async () => {
  await using server = await testApp(secured);
  await letIn(server);
  const { home, url, path, fingerprint } = await traveller(server);
  const argv = ["run", path, "x", "--url", url, "--identity", laptop.path];
  const wrong = `SHA256:${"A".repeat(43)}`;
  const { code, err } = await runCommand([...argv, "--fingerprint", wrong], { home });
  expect(code).toBe(1);
  expect(err).toContain("NOT THE ONE THAT IT SHOULD BE");
  expect(err).toContain(fingerprint);
  expect(server.lines.some(({ text }) => text === "connected")).toBe(false);
});

test.each([
  ["as it is", {}],
  ["where certificates are not to be checked", { NODE_TLS_REJECT_UNAUTHORIZED: "0" }],
])(
  "whoever takes the place of the server after its certificate was seen hears nothing, %s",
  async (_, env) => {
    await using server = await testApp(secured);
    await letIn(server);
    const { home, path, fingerprint } = await traveller(server);
    let seen = 0;
    let evilPort = "";
    using between = Bun.listen<{ other: Promise<Bun.Socket> }>({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        open(near) {
          seen += 1;
          const port = seen === 1 ? server.url.port : evilPort;
          const data = (_socket: Bun.Socket, chunk: Buffer) => void near.write(chunk);
          const close = () => void near.end();
          const other = Bun.connect({
            hostname: "127.0.0.1",
            port: Number(port),
            socket: { data, close },
          });
          near.data = { other };
        },
        data: ({ data: { other } }, chunk) =>
          void other.then((far) => far.write(Buffer.from(chunk))),
        close: ({ data: { other } }) => void other.then((far) => far.end()),
      },
    });
    const names = { PA_SERVER_ALLOWED_HOSTS: `127.0.0.1:${between.port}` };
    await using evil = await testApp({ ...secured, ...names });
    evilPort = evil.url.port;
    const url = `wss://127.0.0.1:${between.port}`;
    const argv = ["run", path, "say:secret", "--url", url, "--identity", laptop.path];
    const child = spawnCommand([...argv, "--fingerprint", fingerprint], { home, env });
    const twice = () => seen > 2 || child.exitCode !== null;
    while (!twice()) await Bun.sleep(10);
    expect(seen).toBeGreaterThan(1);
    child.kill("SIGKILL");
    await child.exited;
    for (const app of [server, evil])
      expect(app.lines.some(({ text }) => text === "connected")).toBe(false);
  },
);

test("an unknown server is refused where nobody can be asked, with the flag that lets it pass", async () => {
  await using server = await testApp(secured);
  const { home, url, path, fingerprint } = await traveller(server);
  const { code, err } = await runCommand(["run", path, "x", "--url", url], { home });
  expect({ code, err }).toEqual({
    code: 1,
    err: expect.stringContaining(`--fingerprint ${fingerprint}`),
  });
});

test("an unknown server is asked about once, and refused when its key is another later", async () => {
  await using server = await testApp(secured);
  await letIn(server);
  const { home, url, path, fingerprint } = await traveller(server);
  const words = ["run", path, "say:trusted", "--url", url, "--identity", laptop.path];
  const argv = [process.execPath, main, ...words];
  {
    using screen = new Tmux(argv, { home, env: environmentOf(home) });
    await screen.until(fingerprint);
    await screen.until("[y/N]");
    screen.keys("Enter");
    await screen.until("you said no");
    await screen.until("left with 1");
  }
  {
    using screen = new Tmux(argv, { home, env: environmentOf(home) });
    await screen.until("[y/N]");
    screen.keys("y", "Enter");
    await screen.until("left with 0");
    expect(screen.text).toContain("trusted");
  }
  const file = join(home, ".config", "pocket-agent", "known_servers");
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(await runCommand(words, { home })).toMatchObject({ code: 0, out: "trusted\n" });
  await writeFile(file, `${new URL(url).host} SHA256:${"B".repeat(43)}\n`);
  const { code, err } = await runCommand(words, { home });
  expect(code).toBe(1);
  expect(err).toContain("NOT THE ONE THAT IT SHOULD BE");
  expect(err).toContain(file);
});

test("a key with a passphrase asks for it on the terminal", async () => {
  await using server = await testApp(secured);
  const { home, url, path, fingerprint } = await traveller(server);
  const key = join(home, "locked");
  run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "open sesame", "-f", key]);
  await runCommand(["keys", "import", `${key}.pub`], { home: server.home });
  const words = ["run", path, "say:unlocked", "--url", url, "--identity", key];
  const argv = [process.execPath, main, ...words, "--fingerprint", fingerprint];
  using screen = new Tmux(argv, { home, env: environmentOf(home) });
  await screen.until("Enter passphrase");
  screen.type("open sesame");
  screen.keys("Enter");
  await screen.until(/^unlocked$/m);
  await screen.until("left with 0");
});

test("a certificate that an authority has signed for another name is as good, by its key", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = await scratch(stack);
  const at = (name: string) => join(folder, name);
  const [ca, leaf] = ["ca", "leaf"].map((name) => [
    "-keyout",
    at(`${name}.key`),
    "-subj",
    `/CN=${name}`,
  ]);
  const newKey = [
    "openssl",
    "req",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:P-256",
    "-nodes",
  ];
  run([...newKey, "-x509", "-days", "9", "-out", at("ca.crt"), ...(ca ?? [])]);
  run([...newKey, "-out", at("leaf.csr"), ...(leaf ?? [])]);
  const authority = ["-CA", at("ca.crt"), "-CAkey", at("ca.key"), "-CAcreateserial"];
  run([
    "openssl",
    "x509",
    "-req",
    "-in",
    at("leaf.csr"),
    "-days",
    "9",
    "-out",
    at("leaf.crt"),
    ...authority,
  ]);
  const certificate = { PA_TLS_CERT: at("leaf.crt"), PA_TLS_KEY: at("leaf.key") };
  await using server = await testApp({ ...secured, ...certificate });
  await letIn(server);
  const { home, url, path, fingerprint } = await traveller(server);
  const argv = ["run", path, "say:signed", "--url", url, "--identity", laptop.path];
  const result = await runCommand([...argv, "--fingerprint", fingerprint], { home });
  expect(result).toEqual({ code: 0, out: "signed\n", err: "" });
});

test("a restarted server is logged in to again without the key, and one with another key is not", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const key = join(home, "key");
  run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key]);
  await mkdir(join(home, "shop"));
  const first = stack.use(await ServerProcess.start({ home, settings: secured }));
  await runCommand(["keys", "import", `${key}.pub`], { home });
  await runCommand(["run", "shop", "say:one"], { home });
  const settings = { ...secured, PA_SERVER_PORT: first.url.port };
  const { fingerprint } = JSON.parse((await runCommand(["certs", "--json"], { home })).out);
  const url = `wss://127.0.0.1:${first.url.port}`;
  const argv = ["logs", "shop", "--follow", "--url", url, "--identity", key];
  const child = spawnCommand([...argv, "--fingerprint", fingerprint], { home });
  stack.defer(() => child.kill());
  const [out, err] = [new Reader(child.stdout), new Reader(child.stderr)];
  await out.until("  one\n");
  await rm(key);
  await first.stop();
  await err.until("Connection lost");
  const second = stack.use(await ServerProcess.start({ home, settings }));
  await err.until("Connected again");
  await runCommand(["run", "shop", "say:two"], { home });
  await out.until("  two\n");
  await second.stop();
  await rm(join(home, "data", "certs"), { recursive: true });
  stack.use(await ServerProcess.start({ home, settings }));
  expect(await child.exited).toBe(1);
  expect(await err.all()).toContain("NOT THE ONE THAT IT SHOULD BE");
});

test("only wss is spoken to another machine", async () => {
  await using server = await testApp(secured);
  const { home, path } = await traveller(server);
  const { code, err } = await runCommand(["run", path, "x", "--url", "ws://127.0.0.1:1"], { home });
  expect({ code, err }).toEqual({ code: 2, err: expect.stringContaining("expected wss://") });
});
