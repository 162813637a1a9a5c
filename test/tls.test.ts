import { expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { scratch } from "./support/app.ts";
import { Client } from "./support/client.ts";
import { bindingOf } from "./support/log-in.ts";
import { ServerProcess, spawnServer } from "./support/server-process.ts";
import { run } from "./support/ssh-lab.ts";

setDefaultTimeout(60_000);

/** As a server is without any settings. */
const secured = { PA_AUTH_MODE: "ssh", PA_TLS_ENABLED: "true", PA_INSECURE: "false" };

/** What openssl says of a handshake with one version, which it offers with every cipher it has. */
async function handshake(url: URL, version: string) {
  const child = Bun.spawn(
    ["openssl", "s_client", "-connect", url.host, `-${version}`, "-cipher", "ALL:@SECLEVEL=0"],
    { stdin: "ignore", stdout: "pipe", stderr: "pipe" },
  );
  const text = (await child.stdout.text()) + (await child.stderr.text());
  await child.exited;
  const [, protocol] = /^\s*(?:New, |Protocol\s*: )(TLSv[\d.]+)/m.exec(text) ?? [];
  const [, certificate] =
    /(-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----)/s.exec(text) ?? [];
  return { protocol: certificate ? protocol : undefined, certificate };
}

/** The fingerprint of a certificate's key, by openssl alone. */
function fingerprint(certificate: string): string {
  const key = run(["openssl", "x509", "-pubkey", "-noout"], certificate);
  const script =
    "openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | openssl base64 -A";
  return `SHA256:${run(["sh", "-c", script], key).replace(/=+$/, "")}`;
}

test("TLS 1.2 and 1.3 are spoken and nothing older; with min_version 1.3 only that", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const versions = ["tls1", "tls1_1", "tls1_2", "tls1_3"];
  const spoken = async (settings: Record<string, string>) => {
    await using server = await ServerProcess.start({ home, settings });
    const all = await Promise.all(versions.map((version) => handshake(server.url, version)));
    return versions.filter((_, at) => all[at]?.certificate);
  };
  expect(await spoken(secured)).toEqual(["tls1_2", "tls1_3"]);
  const strict = { ...secured, PA_SERVER_TLS_MIN_VERSION: "1.3" };
  expect(await spoken(strict)).toEqual(["tls1_3"]);
  // The old versions are really offered: one that speaks them is found.
  const { cert, key } = authority(await folder(home));
  const old = ["-cert", cert, "-key", key, "-tls1", "-cipher", "ALL:@SECLEVEL=0"];
  const lax = Bun.spawn(["openssl", "s_server", "-accept", "127.0.0.1:0", ...old], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "ignore",
  });
  stack.defer(() => lax.kill());
  const [, host = ""] = await untilText(lax.stdout, /^ACCEPT (\S+)/m);
  expect((await handshake(new URL(`https://${host}`), "tls1")).certificate).toBeDefined();
});

test("the fingerprint is one: on the wire, in hello, in certs show, and after a renewal", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const main = join(import.meta.dir, "..", "src", "main.ts");
  const env = { PATH: process.env["PATH"], HOME: home, PA_DATA_DIR: join(home, "data") };
  const certs = async (action: string) => {
    const child = Bun.spawn([process.execPath, main, "certs", action, "--json"], { env });
    return JSON.parse(await child.stdout.text());
  };
  const look = async () => {
    await using server = await ServerProcess.start({ home, settings: secured });
    const { certificate = "" } = await handshake(server.url, "tls1_3");
    const ca = await Bun.file(join(home, "data", "certs", "server.crt")).text();
    await using client = await Client.connect(server.url, { ca });
    const id = bindingOf(client).server;
    return {
      certificate,
      prints: [fingerprint(certificate), id, (await certs("show")).fingerprint],
    };
  };
  const before = await look();
  expect(new Set(before.prints).size).toBe(1);
  await certs("renew");
  const after = await look();
  expect(after.prints).toEqual(before.prints);
  expect(after.certificate).not.toBe(before.certificate);
});

test("files of one's own are served, with their chain", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const files = authority(await folder(home));
  const settings = { ...secured, PA_TLS_CERT: files.cert, PA_TLS_KEY: files.key };
  await using server = await ServerProcess.start({ home, settings });
  const verified = run([
    "openssl",
    "s_client",
    "-connect",
    server.url.host,
    "-CAfile",
    files.root,
    "-verify_return_error",
  ]);
  expect(verified).toContain("Verify return code: 0 (ok)");
  expect(verified).toMatch(/ 1 s:.*CN = Middle/);
});

test.each([
  [
    "a file that is missing",
    { PA_TLS_CERT: "/nowhere/c.pem", PA_TLS_KEY: "/nowhere/k.pem" },
    "no file",
  ],
  [
    "no certificate",
    { PA_TLS_CERT: import.meta.path, PA_TLS_KEY: import.meta.path },
    "not a certificate",
  ],
])("%s stops the start with a sentence", async (_, files, sentence) => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const child = spawnServer({ home, settings: { ...secured, ...files } });
  const [code, err] = await Promise.all([child.exited, child.stderr.text()]);
  expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining(sentence) });
  expect(err).not.toContain("    at ");
});

test("a key that is another certificate's, or that others may read, stops the start", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const files = authority(await folder(home));
  const refusal = async () => {
    const settings = { ...secured, PA_TLS_CERT: files.root, PA_TLS_KEY: files.key };
    const child = spawnServer({ home, settings });
    return { code: await child.exited, err: await child.stderr.text() };
  };
  expect(await refusal()).toEqual({ code: 1, err: expect.stringContaining("not the key of") });
  chmodSync(files.key, 0o644);
  expect(await refusal()).toEqual({ code: 1, err: expect.stringContaining("chmod 600") });
});

test("plain HTTP on the port is answered with nothing", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  await using server = await ServerProcess.start({ home, settings: secured });
  const plain = fetch(`http://${server.url.host}/health`).then((response) => response.text());
  expect(await plain.catch(() => "nothing")).not.toContain("ok");
});

async function untilText(stream: ReadableStream<Uint8Array>, pattern: RegExp) {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    const found = pattern.exec(text);
    if (found) return found;
  }
  throw new Error(`Never came: ${text}`);
}

async function folder(home: string): Promise<string> {
  const path = join(home, "own");
  await mkdir(path, { mode: 0o700 });
  return path;
}

/** A certificate for loopback by a middle authority under a root, all made by openssl. */
function authority(at: string) {
  const file = (name: string) => join(at, name);
  const key = (name: string) =>
    run([
      "openssl",
      "genpkey",
      "-algorithm",
      "EC",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-out",
      file(name),
    ]);
  const days = ["-days", "2"];
  for (const name of ["root.key", "middle.key", "server.key"]) key(name);
  const root = ["-key", file("root.key"), "-out", file("root.pem"), "-subj", "/CN=Root"];
  run(["openssl", "req", "-x509", ...days, ...root]);
  const sign = (name: string, by: string, extension: string) => {
    const request = ["-key", file(`${name}.key`), "-out", file(`${name}.csr`)];
    run([
      "openssl",
      "req",
      "-new",
      ...request,
      "-subj",
      name === "middle" ? "/CN=Middle" : "/CN=Own",
    ]);
    run([
      "sh",
      "-c",
      `printf '%s' '${extension}' > '${file("ext")}' && openssl x509 -req -days 2 -in '${file(`${name}.csr`)}' -CA '${file(`${by}.pem`)}' -CAkey '${file(`${by}.key`)}' -CAcreateserial -extfile '${file("ext")}' -out '${file(`${name}.pem`)}'`,
    ]);
  };
  sign("middle", "root", "basicConstraints=critical,CA:true");
  sign("server", "middle", "subjectAltName=IP:127.0.0.1");
  run(["sh", "-c", `cat '${file("middle.pem")}' >> '${file("server.pem")}'`]);
  chmodSync(file("server.key"), 0o600);
  return { cert: file("server.pem"), key: file("server.key"), root: file("root.pem") };
}
