import { createHash, createPublicKey, type KeyObject, type webcrypto } from "node:crypto";
import { fromBase64, Malformed, SshReader } from "./ssh-wire.ts";

const curves = {
  nistp256: { jwk: "P-256", bytes: 32 },
  nistp384: { jwk: "P-384", bytes: 48 },
  nistp521: { jwk: "P-521", bytes: 66 },
} as const;

/** Reads what follows the type's name in a blob. */
type KeyReader = (
  reader: SshReader,
) => Omit<SshKey, "type" | "key"> & { readonly jwk: webcrypto.JsonWebKey };

const readers = {
  "ssh-ed25519": ed25519,
  "ecdsa-sha2-nistp256": (reader) => ecdsa(reader, "nistp256"),
  "ecdsa-sha2-nistp384": (reader) => ecdsa(reader, "nistp384"),
  "ecdsa-sha2-nistp521": (reader) => ecdsa(reader, "nistp521"),
  "ssh-rsa": rsa,
  "sk-ssh-ed25519@openssh.com": (reader) => withApplication(reader, ed25519(reader)),
  "sk-ecdsa-sha2-nistp256@openssh.com": (reader) =>
    withApplication(reader, ecdsa(reader, "nistp256")),
} as const satisfies Record<string, KeyReader>;

/** The kinds of keys that may log in. */
export type SshKeyType = keyof typeof readers;

/** A public key, ready to verify with. */
export interface SshKey {
  readonly type: SshKeyType;
  readonly key: KeyObject;
  /** Of a coordinate or a modulus; each half of a signature by it is as long, or the whole. */
  readonly bytes: number;
  /** What a security key was enrolled for, and signs along. */
  readonly application?: Buffer;
}

/** No key is longer: 8192 bits of RSA and some bytes around them. */
export const maxBlobBytes = 2048;

/** Whether a name is that of a kind of keys that may log in. */
function isSshKeyType(name: string): name is SshKeyType {
  return Object.hasOwn(readers, name);
}

/** Reads a public key in SSH's wire format. Throws nothing but Malformed. */
export function parseSshKey(blob: Buffer): SshKey {
  if (blob.length > maxBlobBytes) throw new Malformed("the key is too long");
  const reader = new SshReader(blob);
  const type = reader.name();
  if (!isSshKeyType(type)) throw new Malformed(refusal(type));
  const { jwk, ...rest } = readers[type](reader);
  reader.end();
  try {
    return { type, key: createPublicKey({ format: "jwk", key: jwk }), ...rest };
  } catch {
    // The one thing that is left to be wrong: numbers that are no point of the curve.
    throw new Malformed("the key is not a valid one of its kind");
  }
}

/** Names a key: `SHA256:` and the digest of its blob, as `ssh-keygen -l` prints it. */
export function fingerprint(blob: Uint8Array): string {
  return `SHA256:${createHash("sha256").update(blob).digest("base64").replace(/=+$/, "")}`;
}

/**
 * The blob in a line of a public key file, or in base64 alone; undefined if there is none. No key
 * material is looked at: a stranger's is not worth it before the blob is known.
 */
export function publicKeyBlob(text: string): Buffer | undefined {
  if (text.length > 2 * maxBlobBytes) return undefined;
  const [first = "", second] = text.trim().split(/[ \t]+/);
  const blob = fromBase64(second === undefined ? first : second);
  if (!blob || blob.length > maxBlobBytes) return undefined;
  return second === undefined || nameIn(blob) === first ? blob : undefined;
}

/** The type that a blob begins with; undefined if that much cannot be read. */
export function nameIn(blob: Buffer): string | undefined {
  const length = blob.length < 4 ? Number.NaN : blob.readUInt32BE();
  return length <= blob.length - 4 ? blob.toString("latin1", 4, 4 + length) : undefined;
}

/** Why a kind of keys may not log in. */
function refusal(type: string): string {
  if (type.includes("-cert-v")) return "certificates are not accepted";
  if (type === "ssh-dss") return "DSA keys are not accepted";
  return "keys of this type are not accepted";
}

function ed25519(reader: SshReader) {
  const x = reader.string();
  if (x.length !== 32) throw new Malformed("an Ed25519 key has 32 bytes");
  return { jwk: { kty: "OKP", crv: "Ed25519", x: x.toString("base64url") }, bytes: 32 };
}

function ecdsa(reader: SshReader, name: keyof typeof curves) {
  const { jwk: crv, bytes } = curves[name];
  if (reader.name() !== name) throw new Malformed("the curve is not the one of the key's type");
  const point = reader.string();
  // 4 means that both coordinates follow; ssh-keygen writes no other form.
  if (point.length !== 1 + 2 * bytes || point[0] !== 4)
    throw new Malformed("the point of the curve has the wrong form");
  const x = point.toString("base64url", 1, 1 + bytes);
  const y = point.toString("base64url", 1 + bytes);
  return { jwk: { kty: "EC", crv, x, y }, bytes };
}

function rsa(reader: SshReader) {
  const e = reader.positive();
  const n = reader.positive();
  const bits = n.length * 8 - Math.clz32(n[0] ?? 0) + 24;
  if (bits < 2048) throw new Malformed(`RSA keys need 2048 bits or more, this one has ${bits}`);
  if (bits > 8192) throw new Malformed(`RSA keys may have 8192 bits, this one has ${bits}`);
  // A long exponent makes each verification slow, and 1 makes every signature right.
  if (e.length > 4 || (e.length === 1 && e[0] === 1) || isEven(e) || isEven(n))
    throw new Malformed("the numbers are not those of an RSA key");
  const jwk = { kty: "RSA", n: n.toString("base64url"), e: e.toString("base64url") };
  return { jwk, bytes: n.length };
}

function isEven(number: Buffer): boolean {
  return ((number.at(-1) ?? 0) & 1) === 0;
}

function withApplication<K extends object>(reader: SshReader, key: K) {
  return { ...key, application: reader.string() };
}
