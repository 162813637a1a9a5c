import { afterAll, describe, expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { configuredCertificate, ownCertificate } from "../src/access/certificate.ts";
import { machineAddresses } from "../src/access/machine-names.ts";
import { serverId } from "../src/adapters/server-key.ts";
import { run } from "./support/ssh-lab.ts";

const root = mkdtempSync(join(tmpdir(), "certificate-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const dayMs = 86_400_000;
const now = new Date("2026-03-01T00:00:00Z");
const later = (days: number) => new Date(now.getTime() + days * dayMs);

function newFolder(): { certsDir: string; id: string; path: string } {
  const certsDir = mkdtempSync(join(root, "certs-"));
  return { certsDir, id: serverId(certsDir), path: join(certsDir, "server.crt") };
}

describe("ownCertificate", () => {
  test("is for the key that is there, in this machine's names, and what openssl says it is", async () => {
    const { certsDir, id, path } = newFolder();
    const certificate = await ownCertificate({ certsDir, now });
    expect(certificate.fingerprint).toBe(id);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readdirSync(certsDir).toSorted()).toEqual(["server.crt", "server.key"]);

    const spki = run(["openssl", "x509", "-in", path, "-noout", "-pubkey"]);
    const script = "openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | base64";
    expect(`SHA256:${run(["sh", "-c", script], spki).trim().replace(/=+$/, "")}`).toBe(id);

    const text = run(["openssl", "x509", "-in", path, "-noout", "-text"]);
    expect(text).toContain("NIST CURVE: P-256");
    expect(text).toContain("CA:FALSE");
    expect(text).toContain("TLS Web Server Authentication");
    expect(
      run(["openssl", "verify", "-CAfile", path, "-partial_chain", "-attime", "1772409600", path]),
    ).toContain("OK");
    expect(certificate.names).toEqual(
      expect.arrayContaining(["localhost", hostname().toLowerCase(), "127.0.0.1", "::1"]),
    );
    const parsed = new X509Certificate(certificate.cert);
    const short = hostname().toLowerCase().split(".")[0];
    for (const name of ["localhost", `${short}.local`])
      expect(parsed.checkHost(name)).toBeDefined();
    for (const address of machineAddresses()) expect(parsed.checkIP(address)).toBeDefined();
    expect(parsed.validToDate.getTime() - parsed.validFromDate.getTime()).toBe(397 * dayMs);
    expect(certificate.expires).toEqual(parsed.validToDate);
  });

  test("serves TLS to who trusts it", async () => {
    const { certsDir } = newFolder();
    const { cert, key } = await ownCertificate({ certsDir, now: new Date() });
    using server = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      tls: { cert, key },
      fetch: () => new Response("hello"),
    });
    const response = await fetch(`https://localhost:${server.port}`, { tls: { ca: cert } });
    expect(await response.text()).toBe("hello");
  });

  test("stays for a year, is made anew with 30 days left, and keeps the key", async () => {
    const { certsDir, path, id } = newFolder();
    const first = await ownCertificate({ certsDir, now });
    expect((await ownCertificate({ certsDir, now: later(366) })).cert).toBe(first.cert);
    const second = await ownCertificate({ certsDir, now: later(368) });
    expect(second.cert).not.toBe(first.cert);
    expect(second.key).toBe(first.key);
    expect(second.fingerprint).toBe(id);
    expect(second.expires.getTime()).toBeGreaterThan(later(368 + 396).getTime());
    expect(readFileSync(path, "utf8")).toBe(second.cert);
    const third = await ownCertificate({ certsDir, now: later(368), renew: true });
    expect(third.cert).not.toBe(second.cert);
    expect(third.fingerprint).toBe(id);
  });

  test("is made anew when it lacks a name, is for another key, or is none", async () => {
    const { certsDir, path } = newFolder();
    const key = join(certsDir, "server.key");
    const make = (file: string, names: string) =>
      run([
        "openssl",
        "req",
        "-x509",
        "-new",
        "-key",
        file,
        "-out",
        path,
        "-days",
        "3650",
        "-subj",
        "/CN=x",
        "-addext",
        `subjectAltName=${names}`,
      ]);
    make(key, "DNS:localhost,IP:127.0.0.1");
    expect((await ownCertificate({ certsDir, now: new Date() })).names).toContain("::1");

    const complete = await ownCertificate({ certsDir, now: new Date() });
    const all = complete.names.map((name) =>
      /[:]|^[\d.]+$/.test(name) ? `IP:${name}` : `DNS:${name}`,
    );
    make(key, [...all, "DNS:old.example"].join());
    const kept = await ownCertificate({ certsDir, now: new Date() });
    expect(kept.names).toContain("old.example");

    make(join(newFolder().certsDir, "server.key"), all.join());
    expect((await ownCertificate({ certsDir, now: new Date() })).fingerprint).toBe(
      serverId(certsDir),
    );
    writeFileSync(path, "-----BEGIN CERTIFICATE-----\nAAAA\n");
    expect((await ownCertificate({ certsDir, now: new Date() })).names).toContain("localhost");
  });

  test("refuses a key that others can read, or that is not there", async () => {
    const { certsDir } = newFolder();
    chmodSync(join(certsDir, "server.key"), 0o644);
    const failure = () =>
      ownCertificate({ certsDir, now }).catch((cause: unknown) => String(cause));
    expect(await failure()).toContain("others may change or read it");
    rmSync(join(certsDir, "server.key"));
    expect(await failure()).toContain("Cannot use the server key: there is no file");
  });
});

describe("configuredCertificate", () => {
  const folder = mkdtempSync(join(root, "own-"));
  const cert = join(folder, "fullchain.pem");
  const key = join(folder, "privkey.pem");
  run([
    "openssl",
    "req",
    "-x509",
    "-newkey",
    "rsa:2048",
    "-nodes",
    "-keyout",
    key,
    "-out",
    cert,
    "-days",
    "90",
    "-subj",
    "/CN=x",
    "-addext",
    "subjectAltName=DNS:Agent.Example,IP:2001:db8::1",
  ]);
  chmodSync(key, 0o640);
  chmodSync(cert, 0o600);

  test("is what the files say, the chain included", () => {
    const pem = readFileSync(cert, "utf8");
    writeFileSync(cert, `${pem}${pem}`);
    const certificate = configuredCertificate({ cert, key });
    expect(certificate.cert).toBe(`${pem}${pem}`);
    expect(certificate.key).toBe(readFileSync(key, "utf8"));
    expect(certificate.names).toEqual(["agent.example", "2001:db8::1"]);
    expect(certificate.fingerprint).toMatch(/^SHA256:[A-Za-z0-9+/]{43}$/);
  });

  test("refuses what is missing, unreadable, or does not belong together, in a sentence", () => {
    const other = join(newFolder().certsDir, "server.key");
    const missing = join(folder, "missing.pem");
    expect(() => configuredCertificate({ cert, key: undefined })).toThrow("need each other");
    expect(() => configuredCertificate({ cert: undefined, key })).toThrow("need each other");
    expect(() => configuredCertificate({ cert: missing, key })).toThrow(
      `Cannot use the certificate (server.tls.cert): there is no file "${missing}"`,
    );
    expect(() => configuredCertificate({ cert, key: missing })).toThrow(
      `Cannot use the key (server.tls.key): there is no file "${missing}"`,
    );
    expect(() => configuredCertificate({ cert, key: other })).toThrow(
      `it is not the key of the certificate "${cert}"`,
    );
    expect(() => configuredCertificate({ cert: key, key })).toThrow("it is not a certificate");
    expect(() => configuredCertificate({ cert, key: cert })).toThrow("it is not a private key");
    expect(() => configuredCertificate({ cert: folder, key })).toThrow("it is not a file");
    chmodSync(key, 0o644);
    expect(() => configuredCertificate({ cert, key })).toThrow("others may change or read it");
  });
});
