/** `scripts/install.sh` with a program that only says its version; the real one is test/smoke's. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { arch } from "node:os";
import { join } from "node:path";
import { ownCertificate } from "../src/access/certificate.ts";
import { serverId } from "../src/adapters/server-key.ts";
import { scratch } from "./support/app.ts";

setDefaultTimeout(30_000);

const script = join(import.meta.dir, "..", "scripts", "install.sh");
const stack = new AsyncDisposableStack();
let root: string;
/** The same files by TLS and without; `/away` leads from the one to the other, `/on` stays. */
let secure: URL;
let plain: URL;

beforeAll(async () => {
  root = await scratch(stack);
  const program = "#!/bin/sh\necho 9.9.9\n";
  const sum = new Bun.CryptoHasher("sha256").update(program).digest("hex");
  const system = `${process.platform}-${arch()}`;
  const names = [system, `${system}-musl`].map((target) => `pocket-agent-${target}`);
  const files = new Map<string, string>([
    ...names.map((name) => [`/${name}`, program] as const),
    ["/SHA256SUMS", names.map((name) => `${sum}  ${name}\n`).join("")] as const,
  ]);
  const answer = (request: Request) => {
    const { pathname } = new URL(request.url);
    const [, way = "", name = ""] = /^\/(away|on)(\/.*)$/.exec(pathname) ?? [];
    if (way) return Response.redirect(new URL(name, way === "on" ? secure : plain).href);
    return new Response(files.get(pathname) ?? null, { status: files.has(pathname) ? 200 : 404 });
  };
  const certsDir = join(root, "certs");
  mkdirSync(certsDir);
  serverId(certsDir);
  const { cert, key } = await ownCertificate({ certsDir, now: new Date() });
  const at = { hostname: "127.0.0.1", port: 0 };
  plain = stack.use(Bun.serve({ ...at, fetch: answer })).url;
  secure = stack.use(Bun.serve({ ...at, tls: { cert, key }, fetch: answer })).url;
});

afterAll(() => stack.disposeAsync());

/** Installs from somewhere into a new folder. */
async function install(from: string) {
  const folder = join(root, crypto.randomUUID());
  const env = { PATH: "/usr/bin:/bin", HOME: root, CURL_CA_BUNDLE: join(root, "certs/server.crt") };
  const child = Bun.spawn(["sh", script, from, folder], { env, stdout: "pipe", stderr: "pipe" });
  const [code, err] = await Promise.all([child.exited, child.stderr.text()]);
  const target = join(folder, "pocket-agent-server");
  return { code, err, installed: existsSync(target) && readFileSync(target, "utf8") };
}

test("what is had by TLS is installed, also from where it leads on to by TLS", async () => {
  for (const from of [secure.href, `${secure.href}on`])
    expect(await install(from)).toEqual({
      code: 0,
      err: "",
      installed: expect.stringContaining("9.9.9"),
    });
});

test("nothing is installed from where TLS leads away from", async () => {
  expect(await install(`${secure.href}away`)).toMatchObject({ code: 1, installed: false });
});

test("without TLS it comes from this machine, or not at all", async () => {
  expect(await install(plain.href)).toMatchObject({ code: 0, err: "" });
  for (const from of [
    "http://192.0.2.1/x",
    "http://127.0.0.1.example/x",
    "http://localhost.example/x",
    "http://127.0.0.1:80@192.0.2.1/x",
    "http://127.0.0.1@192.0.2.1/x",
  ])
    expect(await install(from)).toMatchObject({
      code: 1,
      err: expect.stringContaining("without TLS"),
      installed: false,
    });
});
