import {
  createHash,
  createPrivateKey,
  type KeyObject,
  randomBytes,
  X509Certificate,
} from "node:crypto";
import { join } from "node:path";
import { systemCode } from "../adapters/storage-fault.ts";
import { canonicalAddress } from "./address.ts";
import { machineAddresses, machineNames } from "./machine-names.ts";
import { forbidden, readOwned } from "./owned-file.ts";
import { replaceFile } from "./state-file.ts";

/** What the server shows to clients, and what it says of itself. */
export interface Certificate {
  /** PEM; intermediate certificates follow the server's own. */
  readonly cert: string;
  readonly key: string;
  /** Of the public key, so that it outlives a renewal. */
  readonly fingerprint: string;
  /** Host names and addresses. */
  readonly names: readonly string[];
  readonly expires: Date;
}

const hourMs = 3_600_000;
const validMs = 397 * 24 * hourMs;
const renewMs = 30 * 24 * hourMs;

/**
 * The certificate that this server makes for itself, for the key `server.key` that is there. It is
 * made anew, with the same key, when it ends within 30 days, when a name of the machine is missing
 * in it, or when asked to. Names that are no longer the machine's stay until then: browsers that
 * were told to accept a certificate ask again for each new one.
 */
export async function ownCertificate(options: {
  readonly certsDir: string;
  readonly now: Date;
  readonly renew?: boolean;
}): Promise<Certificate> {
  const { certsDir, now, renew = false } = options;
  const keyPath = join(certsDir, "server.key");
  const key = readKey(keyPath, read(keyPath, "server key", forbidden.reading));
  const path = join(certsDir, "server.crt");
  const names = [...machineNames().filter((name) => /^[a-z0-9._-]+$/.test(name)), ...addresses()];
  const existing = renew ? undefined : parse(readOwned(path)?.toString() ?? "");
  if (existing?.checkPrivateKey(key.object) && isGood(existing, names, now))
    return describe(existing, existing.toString(), key.pem);
  const cert = await sign(key.object, names, now);
  await replaceFile(path, cert).catch((error: unknown) => {
    // It can be shown without being kept: a full disk, which health tells of, stops no server.
    if (renew || !existing || systemCode(error) !== "ENOSPC") throw error;
  });
  return describe(new X509Certificate(cert), cert, key.pem);
}

/** The certificate that the configuration names. Throws a sentence about what is wrong with it. */
export function configuredCertificate(paths: {
  readonly cert: string | undefined;
  readonly key: string | undefined;
}): Certificate {
  const { cert: certPath, key: keyPath } = paths;
  if (certPath === undefined || keyPath === undefined)
    throw new Error(
      "Cannot use the configured certificate: server.tls.cert and server.tls.key need each other; set both, or neither to have one made",
    );
  const pem = read(certPath, "certificate (server.tls.cert)", forbidden.writing);
  const cert = parse(pem);
  if (!cert)
    throw new Error(
      `Cannot use the certificate "${certPath}": it is not a certificate in PEM form`,
    );
  const key = readKey(keyPath, read(keyPath, "key (server.tls.key)", forbidden.readingByAll));
  if (!cert.checkPrivateKey(key.object))
    throw new Error(
      `Cannot use the key "${keyPath}": it is not the key of the certificate "${certPath}"`,
    );
  return describe(cert, pem, key.pem);
}

function read(path: string, what: string, forbiddenMode: number): string {
  const content = readOwned(path, forbiddenMode);
  if (content) return content.toString();
  throw new Error(`Cannot use the ${what}: there is no file "${path}"`);
}

function readKey(path: string, pem: string): { pem: string; object: KeyObject } {
  try {
    return { pem, object: createPrivateKey(pem) };
  } catch (cause) {
    throw new Error(`Cannot use the key "${path}": it is not a private key without a passphrase`, {
      cause,
    });
  }
}

function parse(pem: string): X509Certificate | undefined {
  try {
    return new X509Certificate(pem);
  } catch {
    // Whether that is a fault, or a reason to make one, is for the caller to say.
    return undefined;
  }
}

function isGood(cert: X509Certificate, names: readonly string[], now: Date): boolean {
  const covered = namesIn(cert);
  return (
    cert.validFromDate <= now &&
    cert.validToDate.getTime() - now.getTime() >= renewMs &&
    names.every((name) => covered.includes(name))
  );
}

function describe(cert: X509Certificate, pem: string, key: string): Certificate {
  const spki = cert.publicKey.export({ type: "spki", format: "der" });
  const digest = createHash("sha256").update(spki).digest("base64");
  return {
    cert: pem,
    key,
    fingerprint: `SHA256:${digest.replace(/=+$/, "")}`,
    names: namesIn(cert),
    expires: cert.validToDate,
  };
}

/** From a text such as `DNS:localhost, IP Address:0:0:0:0:0:0:0:1`. */
function namesIn({ subjectAltName = "" }: X509Certificate): string[] {
  return subjectAltName.split(", ").flatMap((entry) => {
    const [, kind, name = ""] = /^(DNS|IP Address):(.+)$/.exec(entry) ?? [];
    if (kind === undefined) return [];
    return kind === "DNS" ? name.toLowerCase() : (canonicalAddress(name) ?? []);
  });
}

function addresses(): string[] {
  return machineAddresses().flatMap((address) => canonicalAddress(address) ?? []);
}

async function sign(key: KeyObject, names: readonly string[], now: Date): Promise<string> {
  // Loaded when needed, which is once a year: it would double the time that a start takes.
  await import("reflect-metadata");
  const x509 = await import("@peculiar/x509");
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const { kty = "", crv = "", x = "", y = "", d = "" } = key.export({ format: "jwk" });
  if (kty !== "EC" || crv !== algorithm.namedCurve)
    throw new Error('Cannot make a certificate: the key "server.key" is not a P-256 key');
  const publicJwk = { kty, crv, x, y };
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    // Positive and of one length, as RFC 5280 wants it.
    serialNumber: `01${randomBytes(15).toString("hex")}`,
    name: "CN=Pocket Agent Server",
    // An hour ago, for phones whose clock is behind.
    notBefore: new Date(now.getTime() - hourMs),
    notAfter: new Date(now.getTime() - hourMs + validMs),
    signingAlgorithm: algorithm,
    keys: {
      privateKey: await crypto.subtle.importKey("jwk", { ...publicJwk, d }, algorithm, false, [
        "sign",
      ]),
      publicKey: await crypto.subtle.importKey("jwk", publicJwk, algorithm, true, ["verify"]),
    },
    extensions: [
      new x509.SubjectAlternativeNameExtension(
        names.map((value) => ({ type: canonicalAddress(value) ? "ip" : "dns", value })),
      ),
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
    ],
  });
  return `${certificate.toString("pem")}\n`;
}
