import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { existsSync, statSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { controlPath } from "../src/adapters/control-path.ts";
import { scratch, testApp, type TestApp } from "./support/app.ts";
import { Client } from "./support/client.ts";
import { tryKey, tryPairing } from "./support/log-in.ts";
import { ServerProcess } from "./support/server-process.ts";
import { SshLab } from "./support/ssh-lab.ts";

setDefaultTimeout(60_000);

const main = join(import.meta.dir, "..", "src", "main.ts");
const secured = { PA_AUTH_MODE: "ssh", PA_TLS_ENABLED: "true", PA_INSECURE: "false" };
const lab = new SshLab();
afterAll(() => lab[Symbol.dispose]());
const laptop = lab.key("ed25519");
const phone = lab.key("ecdsa", 256);

/** A machine: a home, perhaps with a server, and commands that are run there. */
class Machine implements AsyncDisposable {
  readonly home: string;
  readonly #stack: AsyncDisposableStack;

  private constructor(home: string, stack: AsyncDisposableStack) {
    this.home = home;
    this.#stack = stack;
  }

  static async make(): Promise<Machine> {
    await using stack = new AsyncDisposableStack();
    const home = await scratch(stack);
    return new Machine(home, stack.move());
  }

  get data(): string {
    return join(this.home, "data");
  }

  async serve(): Promise<TestApp> {
    return this.#stack.use(await testApp(secured, { home: this.home }));
  }

  async client(server: { url: URL }): Promise<Client> {
    const ca = await Bun.file(join(this.data, "certs", "server.crt")).text();
    return this.#stack.use(await Client.connect(server.url, { ca }));
  }

  spawn(argv: readonly string[], env: Readonly<Record<string, string>> = {}) {
    return Bun.spawn([process.execPath, main, ...argv], {
      cwd: this.home,
      env: { PATH: process.env["PATH"], HOME: this.home, PA_DATA_DIR: this.data, ...env },
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
    });
  }

  /** Runs a command to its end. */
  async run(argv: readonly string[], given: { env?: Record<string, string>; input?: string } = {}) {
    const child = this.spawn(argv, given.env);
    void child.stdin.write(given.input ?? "");
    await child.stdin.end();
    const [code, out, err] = await Promise.all([
      child.exited,
      child.stdout.text(),
      child.stderr.text(),
    ]);
    return { code, out, err };
  }

  /** Runs a command that must succeed, and gives what it tells programs. */
  async json(...argv: string[]) {
    const { code, out, err } = await this.run([...argv, "--json"]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    return JSON.parse(out);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}

const refused = { type: "error", data: { code: "UNAUTHORIZED" } };

describe("with a running server", () => {
  test("token prints a token that lets its device in with its scope, and revoke ends it", async () => {
    await using machine = await Machine.make();
    const server = await machine.serve();
    const { code, out, err } = await machine.run(["token", "my script", "--scope", "read"]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(/^pat_[\w-]{43}\n$/);
    const client = await machine.client(server);
    const { data } = await client.expect("auth_success", "auth_token", {
      data: { token: out.trim() },
    });
    expect(data.device).toMatchObject({ name: "my script", scope: "read" });
    const { devices } = await machine.json("devices");
    expect(devices).toMatchObject([{ id: data.device.id, kind: "token", connected: true }]);
    await machine.json("devices", "rename", "my script", "old script");
    await machine.json("devices", "revoke", data.device.id.slice(0, 6));
    expect((await client.closed).code).toBe(4403);
    expect(await machine.json("devices")).toEqual({ devices: [] });
  });

  test("keys import lets a key in, tells who is there, and keys remove ends it", async () => {
    await using machine = await Machine.make();
    const server = await machine.serve();
    const { token } = await machine.json("token", "watcher");
    const watcher = await machine.client(server);
    await watcher.expect("auth_success", "auth_token", { data: { token } });
    const client = await machine.client(server);
    expect(await tryKey(client, laptop)).toMatchObject(refused);
    const imported = await machine.run(["keys", "import", "-"], { input: `${laptop.line}\n` });
    expect(imported).toMatchObject({ code: 0, out: expect.stringContaining("may log in now") });
    expect(await tryKey(client, laptop)).toMatchObject({ type: "auth_success" });
    const { data } = await watcher.next("device_added");
    expect(data).toMatchObject({ id: laptop.fingerprint, kind: "ssh", scope: "full" });
    expect(statSync(join(machine.data, "authorized_keys")).mode & 0o777).toBe(0o600);
    await machine.json("keys", "remove", laptop.fingerprint.slice(0, 16));
    expect((await client.closed).code).toBe(4403);
    expect(await machine.json("keys")).toEqual({ keys: [] });
    expect(await tryKey(await machine.client(server), laptop)).toMatchObject(refused);
    await machine.run(["keys", "import", "-"], { input: laptop.line });
    expect(await tryKey(await machine.client(server), laptop)).toMatchObject({
      type: "auth_success",
    });
  });

  test("keys import says what is wrong with a file", async () => {
    await using machine = await Machine.make();
    const missing = await machine.run(["keys", "import", "/nowhere.pub"]);
    expect(missing.code).toBe(1);
    expect(missing.err).toContain("Cannot import /nowhere.pub: there is no such file");
    const path = join(machine.home, "id_secret");
    const begin = "-----BEGIN OPENSSH PRIVATE KEY-----";
    await Bun.write(path, `${begin}\ncanary\n`);
    const secret = await machine.run(["keys", "import", path]);
    expect(secret.code).toBe(1);
    expect(secret.err).toContain(`import ${path}.pub`);
    expect(secret.err).not.toContain("canary");
  });

  test("keys import takes all lines or none, and says which is wrong", async () => {
    await using machine = await Machine.make();
    await machine.serve();
    const input = `# mine\n${laptop.line}\ncommand="sh" ${phone.line}\n`;
    const { code, err } = await machine.run(["keys", "import", "-"], { input });
    expect({ code, err }).toEqual({
      code: 1,
      err: expect.stringMatching(/^Cannot import line 3: .*command/),
    });
    expect(await machine.json("keys")).toEqual({ keys: [] });
  });

  test("no more than the name of the hash is nobody's fingerprint, though there is only one", async () => {
    await using machine = await Machine.make();
    await machine.serve();
    await machine.run(["keys", "import", "-"], { input: laptop.line });
    const said = [
      ["devices", "revoke", "SHA256:"],
      ["devices", "rename", "SHA256:", "mine"],
      ["keys", "remove", "SHA256:"],
    ];
    for (const argv of said)
      expect(await machine.run(argv)).toMatchObject({
        code: 1,
        err: expect.stringMatching(/^Cannot (find the device: none|remove the key: none)/),
      });
    const { keys } = await machine.json("keys");
    expect(keys).toMatchObject([{ fingerprint: laptop.fingerprint, revoked: false }]);
  });

  test("certs show has the fingerprint of hello; renew keeps it, for the next start", async () => {
    await using machine = await Machine.make();
    const server = await machine.serve();
    const client = await machine.client(server);
    const { server: self } = (await client.find(({ type }) => type === "hello", "hello")).data as {
      server: { id: string };
    };
    const file = join(machine.data, "certs", "server.crt");
    const before = new X509Certificate(await Bun.file(file).text());
    expect(await machine.json("certs")).toMatchObject({ fingerprint: self.id, own: true });
    const renewed = await machine.json("certs", "renew");
    const after = new X509Certificate(await Bun.file(file).text());
    expect(renewed).toMatchObject({ fingerprint: self.id, certificate: { file } });
    expect(after.serialNumber).not.toBe(before.serialNumber);
    expect(after.publicKey.equals(before.publicKey)).toBe(true);
  });

  test("pair shows a code and brings the device in that the terminal agrees to", async () => {
    await using machine = await Machine.make();
    const server = await machine.serve();
    const child = machine.spawn(["pair", "--scope", "approve", "--json"]);
    const lines = linesOf(child.stdout);
    const { offer } = await lines();
    const [url = ""] = offer.urls;
    const { fingerprint } = await machine.json("certs");
    const fragment = new URLSearchParams(new URL(url).hash.slice(1));
    expect(fragment.get("fp")).toBe(fingerprint);
    expect(fragment.get("pair")).toBe(offer.code.replaceAll("-", ""));
    expect(new URL(url).port).toBe(server.url.port);
    const client = await machine.client(server);
    const attempt = tryPairing(client, { key: phone, code: base32(offer.code), name: "Phone" });
    const { candidate } = await lines();
    expect(candidate).toMatchObject({ name: "Phone", digits: expect.stringMatching(/^\d{6}$/) });
    void child.stdin.write("y\n");
    await child.stdin.flush();
    expect(await attempt).toMatchObject({
      type: "auth_success",
      data: { device: { name: "Phone", scope: "approve" } },
    });
    expect(await lines()).toMatchObject({ device: { name: "Phone" } });
    expect(await child.exited).toBe(0);
    expect(await tryKey(await machine.client(server), phone)).toMatchObject({
      type: "auth_success",
    });
  });

  test("pair that goes away takes its code with it", async () => {
    await using machine = await Machine.make();
    const server = await machine.serve();
    const child = machine.spawn(["pair", "--json"]);
    const { offer } = await linesOf(child.stdout)();
    child.kill("SIGKILL");
    await child.exited;
    const other = machine.spawn(["pair", "--json", "--yes"]);
    const fresh = await linesOf(other.stdout)();
    const client = await machine.client(server);
    const code = base32(offer.code);
    expect(await tryPairing(client, { key: phone, code, name: "p" })).toMatchObject(refused);
    const right = base32(fresh.offer.code);
    const attempt = { key: phone, code: right, name: "p" };
    expect(await tryPairing(client, attempt)).toMatchObject({ type: "auth_success" });
    expect(await other.exited).toBe(0);
  });

  test("pair on a terminal shows a QR code and asks", async () => {
    await using machine = await Machine.make();
    const server = await machine.serve();
    const command = `exec '${process.execPath}' '${main}' pair`;
    const child = Bun.spawn(["script", "-qefc", command, "/dev/null"], {
      cwd: machine.home,
      env: {
        PATH: process.env["PATH"],
        HOME: machine.home,
        PA_DATA_DIR: machine.data,
        TERM: "vt100",
      },
      stdin: "pipe",
      stdout: "pipe",
      stderr: "inherit",
    });
    const screen = new Screen(child.stdout);
    const [, code = ""] = await screen.until(/Code +([A-Z2-7-]{32})/);
    expect(screen.text).toContain("█ ▄▄▄▄▄ █");
    const client = await machine.client(server);
    const attempt = tryPairing(client, { key: phone, code: base32(code), name: "Phone" });
    await screen.until(/"Phone" at 127\.0\.0\.1 has the code\. It must show the digits \d{6}\./);
    await screen.until(/Let it in\? \[y\/N\]/);
    void child.stdin.write("n\n");
    await child.stdin.flush();
    expect(await attempt).toMatchObject(refused);
    await screen.until(/It was not let in/);
    expect(await child.exited).toBe(1);
  });
});

describe("without a server", () => {
  test("devices, keys and certs work on the data, and the next server knows", async () => {
    await using machine = await Machine.make();
    await machine.run(["keys", "import", "-"], { input: laptop.line });
    const { keys } = await machine.json("keys");
    expect(keys).toMatchObject([{ fingerprint: laptop.fingerprint, comment: "a comment" }]);
    const { fingerprint } = await machine.json("certs");
    const server = await machine.serve();
    const client = await machine.client(server);
    expect(await tryKey(client, laptop)).toMatchObject({ type: "auth_success" });
    expect(client.received[0]?.data).toMatchObject({ server: { id: fingerprint } });
  });

  test("pair and token say that they need one", async () => {
    await using machine = await Machine.make();
    for (const argv of [
      ["pair", "--json"],
      ["token", "x"],
    ])
      expect(await machine.run(argv)).toMatchObject({
        code: 1,
        err: expect.stringContaining("no server is running"),
      });
  });

  test("the socket of a server that was killed is no server", async () => {
    await using machine = await Machine.make();
    const settings = secured;
    const server = await ServerProcess.start({ home: machine.home, settings });
    await server.crash();
    expect(existsSync(join(machine.data, "control.sock"))).toBe(true);
    expect(await machine.json("devices")).toEqual({ devices: [] });
    await machine.serve();
    expect(await machine.json("token", "x")).toMatchObject({ device: { name: "x" } });
  });
});

describe("an agent", () => {
  const marked = { POCKET_AGENT_RUN: crypto.randomUUID() };

  test("is refused by every command", async () => {
    await using machine = await Machine.make();
    await machine.serve();
    for (const argv of [["devices"], ["token", "x"], ["pair", "--json"], ["keys"], ["certs"]])
      expect(await machine.run(argv, { env: marked })).toMatchObject({
        code: 1,
        err: expect.stringContaining("for an agent"),
      });
  });

  test("does not keep the owner out by holding connections", async () => {
    await using machine = await Machine.make();
    await machine.serve();
    const path = controlPath(machine.data, {});
    const script = `
      const held = Array.from({ length: 60 }, () => Bun.connect({ unix: ${JSON.stringify(path)}, socket: { data() {}, error() {}, close() {} } }));
      await Promise.allSettled(held);
      console.log("held");
      await Bun.sleep(60_000);
    `;
    const env = { PATH: process.env["PATH"], ...marked };
    const child = Bun.spawn([process.execPath, "-e", script], { env, stdout: "pipe" });
    const { value } = await child.stdout.getReader().read();
    expect(Buffer.from(value ?? "").toString()).toContain("held");
    expect(await machine.json("devices")).toEqual({ devices: [] });
    child.kill("SIGKILL");
    await child.exited;
  });

  test("is refused by the socket itself, also when only an ancestor has the marker", async () => {
    await using machine = await Machine.make();
    await machine.serve();
    const path = controlPath(machine.data, {});
    const script = join(machine.home, "ask.ts");
    await Bun.write(script, asking(path));
    const ask = `env -u POCKET_AGENT_RUN '${process.execPath}' '${script}'; true`;
    const answer = async (env: Record<string, string>) => {
      const child = Bun.spawn(["sh", "-c", ask], {
        env: { PATH: process.env["PATH"], ...env },
        stdout: "pipe",
      });
      return JSON.parse(await child.stdout.text());
    };
    expect(await answer({})).toEqual({ result: { devices: [] } });
    expect(await answer(marked)).toEqual({
      error: { message: expect.stringContaining("for an agent") },
    });
    const audit = await Bun.file(join(machine.data, "audit.jsonl")).text();
    expect(audit).toContain('"event":"refusal"');
  });

  test("does not fill the audit log by asking again and again", async () => {
    await using machine = await Machine.make();
    await machine.serve();
    const script = knocking(controlPath(machine.data, {}), 200);
    const child = Bun.spawn(["python3", "-c", script], { env: marked, stdout: "pipe" });
    expect(await child.stdout.text()).toBe("200 refusals\n");
    const audit = await Bun.file(join(machine.data, "audit.jsonl")).text();
    const noted = audit.split("\n").filter((line) => line.includes('"event":"refusal"'));
    expect(noted.length).toBeGreaterThanOrEqual(20);
    expect(noted.length).toBeLessThan(100);
  });
});

/** A program that asks one time after the other, and counts how often it is told that it may not. */
const knocking = (path: string, times: number) => `
import socket
refused = 0
for _ in range(${times}):
    s = socket.socket(socket.AF_UNIX)
    s.connect(${JSON.stringify(path)})
    s.sendall(b'{"operation":"devices.list","input":{}}\\n')
    refused += b"for an agent" in s.recv(4096)
    s.close()
print(refused, "refusals")
`;

/** A socket that a child connects, which is gone before the server looks who it was. */
const gone = (path: string, pid: number) => `
import os, signal, socket
s = socket.socket(socket.AF_UNIX)
os.kill(${pid}, signal.SIGSTOP)
child = os.fork()
if child == 0:
    s.connect(${JSON.stringify(path)})
    os._exit(0)
os.waitpid(child, 0)
os.kill(${pid}, signal.SIGCONT)
s.sendall(b'{"operation":"devices.list","input":{}}\\n')
print(s.recv(4096).decode())
`;
const ask = async (script: string) => {
  const child = Bun.spawn(["python3", "-c", script], { stdout: "pipe" });
  return JSON.parse(await child.stdout.text());
};

describe("who hides behind somebody else", () => {
  const refusal = { error: { message: expect.stringContaining("for an agent") } };

  test("a caller that is gone when it is looked at is refused", async () => {
    await using machine = await Machine.make();
    await using server = await ServerProcess.start({ home: machine.home, settings: secured });
    expect(await ask(gone(controlPath(machine.data, {}), server.pid))).toEqual(refusal);
  });
});

describe("the local socket", () => {
  test("is for this account alone, and in a folder of its own where the data's path is long", async () => {
    await using machine = await Machine.make();
    const data = join(machine.home, "d".repeat(120));
    const runtime = join(machine.home, "run");
    const settings = { ...secured, PA_DATA_DIR: data, XDG_RUNTIME_DIR: runtime };
    await using server = await ServerProcess.start({ home: machine.home, settings });
    const path = controlPath(data, { XDG_RUNTIME_DIR: runtime });
    expect(path).toStartWith(runtime);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const env = { PA_DATA_DIR: data, XDG_RUNTIME_DIR: runtime };
    expect(await machine.run(["devices", "--json"], { env })).toMatchObject({ code: 0 });
    await server.stop();
    expect(existsSync(path)).toBe(false);
  });

  test("answers what it cannot read with an error, and goes on", async () => {
    await using machine = await Machine.make();
    await machine.serve();
    const path = controlPath(machine.data, {});
    const requests = [
      "",
      "null",
      "{}",
      "[]",
      '"devices.list"',
      '{"operation":"devices.list"}',
      '{"operation":"devices.list","input":{"x":1}}',
      '{"operation":"devices.rename","input":{"device":"x","name":"\\u0000"}}',
      '{"operation":"tokens.issue","input":{"name":"x","scope":"root"}}',
      '{"operation":"constructor","input":{}}',
      '{"operation":"__proto__","input":{}}',
      '{"operation":"pair","input":{"scope":"full","yes":true}}',
      "x".repeat(2_000_000),
      "\u0000\u0001",
      "{".repeat(100_000),
    ];
    for (const request of requests)
      expect(JSON.parse(await exchange(path, `${request}\n`))).toMatchObject({
        error: { message: expect.any(String) },
      });
    expect(await machine.json("devices")).toEqual({ devices: [] });
  });
});

describe("a wrong call", () => {
  test.each([
    [["devices", "drop"]],
    [["devices", "rename", "x"]],
    [["keys", "import"]],
    [["token"]],
    [["token", "x", "--scope", "root"]],
    [["pair", "now"]],
    [["certs", "make"]],
    [["nonsense"]],
    [["devices", "--nonsense"]],
    [["token", "x", "--scope"]],
  ])("%j exits with 2 and a sentence", async (argv) => {
    await using machine = await Machine.make();
    const { code, out, err } = await machine.run(argv);
    expect({ code, out }).toEqual({ code: 2, out: "" });
    expect(err).toMatch(/^Cannot .+/);
  });

  test.each(["serve", "pair", "token", "devices", "keys", "certs"])(
    "%s --help says how to call it",
    async (name) => {
      await using machine = await Machine.make();
      const { code, out } = await machine.run([name, "--help"]);
      expect(code).toBe(0);
      expect(out).toContain("Usage: pocket-agent-server");
    },
  );
});

/** Sends some bytes to a unix socket, and gives all that comes back. */
function exchange(path: string, bytes: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const socket = connect(path);
  let answer = "";
  socket.on("data", (chunk) => (answer += chunk.toString()));
  socket.on("close", () => resolve(answer));
  // The server hangs up while a long line is still on its way.
  socket.on("error", () => answer || reject(new Error("No answer")));
  socket.write(bytes);
  return promise;
}

/** A program that asks the local socket for something by itself. */
const asking = (path: string) => `
  const socket = require("node:net").connect(${JSON.stringify(path)});
  socket.pipe(process.stdout);
  socket.write(JSON.stringify({ operation: "devices.list", input: {} }) + "\\n");
`;

/** Reads one JSON line after the other. */
function linesOf(stream: ReadableStream<Uint8Array>) {
  const reader = readerOf(stream);
  const decoder = new TextDecoder();
  let text = "";
  return async () => {
    while (!text.includes("\n")) {
      const { value, done } = await reader.read();
      if (done) throw new Error(`No line came: ${text}`);
      text += decoder.decode(value, { stream: true });
    }
    const line = text.slice(0, text.indexOf("\n"));
    text = text.slice(line.length + 1);
    return JSON.parse(line);
  };
}

const readerOf = (stream: ReadableStream<Uint8Array>) => stream.getReader();

/** What a terminal shows, as it comes. */
class Screen {
  text = "";
  readonly #reader: ReturnType<typeof readerOf>;
  readonly #decoder = new TextDecoder();

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#reader = readerOf(stream);
  }

  async until(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const found = pattern.exec(this.text);
      if (found) return found;
      const { value, done } = await this.#reader.read();
      if (done) throw new Error(`The terminal ended at: ${this.text}`);
      this.text += this.#decoder.decode(value, { stream: true });
    }
  }
}

/** The bytes of a typed code. */
function base32(code: string): Buffer {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  const bits = code
    .replaceAll("-", "")
    .split("")
    .map((letter) => alphabet.indexOf(letter).toString(2).padStart(5, "0"))
    .join("");
  return Buffer.from((bits.match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2)));
}
