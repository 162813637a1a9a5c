import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { loginText } from "../src/access/challenge.ts";
import { scratch, testApp } from "./support/app.ts";
import { authorize } from "./support/log-in.ts";
import { opcodes, RawSocket } from "./support/raw-socket.ts";
import { SshLab } from "./support/ssh-lab.ts";

setDefaultTimeout(120_000);

const lab = new SshLab();
afterAll(() => lab[Symbol.dispose]());
const owner = lab.key("ed25519");
const stranger = lab.key("ed25519");
const attemptsPerConnection = 3;

/** A connection from some address, which sends one message and waits for one answer at a time. */
class Visitor implements Disposable {
  readonly #socket: RawSocket;
  #read = 0;

  private constructor(socket: RawSocket) {
    this.#socket = socket;
  }

  static async from(localAddress: string, url: URL): Promise<Visitor> {
    const visitor = new Visitor(await RawSocket.open(url, { localAddress }));
    return visitor;
  }

  async next(): Promise<{ type: string; data: Record<string, unknown> }> {
    await this.#socket.until(() => this.#socket.count(opcodes.text) > this.#read);
    const frames = this.#socket.received.filter(({ opcode }) => opcode === opcodes.text);
    const frame = frames[this.#read];
    this.#read += 1;
    return JSON.parse(frame?.payload.toString() ?? "{}");
  }

  async ask(type: string, data: object) {
    this.#socket.send(opcodes.text, JSON.stringify({ type, data }));
    return await this.next();
  }

  async ended(): Promise<number | undefined> {
    await this.#socket.ended;
    return await this.#socket.closeCode();
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}

test("a thousand guesses from one address keep the owner out neither elsewhere nor there", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  await mkdir(join(home, "data"), { mode: 0o700 });
  await authorize(join(home, "data"), owner.line);
  const settings = { PA_AUTH_MODE: "ssh", PA_INSECURE: "false", PA_LIMITS_MESSAGE_RATE: "10000" };
  const app = stack.use(await testApp(settings, { home }));
  const { devices, tokens } = app.app.access;
  const { id } = await devices.add({ name: "script", scope: "read", key: null, kind: "token" });
  const { token } = await tokens.issue(id, null);
  const junk = stranger.sign("something else");
  const guesses = [
    ["auth_response", { public_key: stranger.line, signature: junk }],
    // The owner's key is public: knowing it must not tell anything, nor do any harm.
    ["auth_response", { public_key: owner.line, signature: junk }],
    ["auth_token", { token: `pat_${"A".repeat(43)}` }],
    ["auth_pair", { public_key: stranger.line, name: "x", signature: junk, mac: "AAAA" }],
  ] as const;
  const answers = new Map<string, number>();
  let made = 0;
  while (made < 1_000) {
    using visitor = await Visitor.from("127.0.0.1", app.url);
    await visitor.next();
    for (let attempt = 0; attempt < attemptsPerConnection; attempt += 1) {
      const [type, data] = guesses[made % guesses.length] ?? guesses[0];
      const { type: kind, data: said } = await visitor.ask(type, data);
      expect(kind).toBe("error");
      const code = String(said["code"]);
      if (code === "RATE_LIMITED")
        expect(said["details"]).toEqual({ retry_after_ms: expect.any(Number) });
      answers.set(code, (answers.get(code) ?? 0) + 1);
      made += 1;
    }
    expect(await visitor.ended()).toBe(4401);
  }
  expect([...answers.keys()].toSorted()).toEqual(["RATE_LIMITED", "UNAUTHORIZED"]);
  // Ten are free, and whoever goes on has to wait.
  expect(answers.get("UNAUTHORIZED")).toBeLessThan(20);

  const login = async (address: string) => {
    using visitor = await Visitor.from(address, app.url);
    const { data } = await visitor.next();
    const { auth, server } = Object(data);
    const { challenge } = auth;
    const text = loginText({ audience: app.url.host, server: server.id, challenge });
    const proof = { public_key: owner.line, signature: owner.sign(text) };
    return await visitor.ask("auth_response", proof);
  };
  expect(await login("127.0.0.2")).toMatchObject({ type: "auth_success" });
  for (const address of ["127.0.0.2", "127.0.0.1"]) {
    using script = await Visitor.from(address, app.url);
    await script.next();
    expect(await script.ask("auth_token", { token })).toMatchObject({ type: "auth_success" });
  }
  // At the guesser's own address signatures share twenty verifications a second, and no penalty.
  let there = await login("127.0.0.1");
  for (let attempt = 0; attempt < 50 && there.type === "error"; attempt += 1) {
    await Bun.sleep(100);
    there = await login("127.0.0.1");
  }
  expect(there).toMatchObject({ type: "auth_success" });
});
