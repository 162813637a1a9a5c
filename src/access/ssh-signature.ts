import { createHash, verify } from "node:crypto";
import { type SshKey, type SshKeyType, maxBlobBytes, parseSshKey } from "./ssh-key.ts";
import { fromBase64, Malformed, SshReader, sshString } from "./ssh-wire.ts";

const magic = "SSHSIG";
const armor =
  /^-----BEGIN SSH SIGNATURE-----\r?\n([A-Za-z0-9+/=\r\n]+)\r?\n-----END SSH SIGNATURE-----\s*$/;
/** The longest holds a key of 8192 bits and as long a signature. */
const maxBytes = 2 * maxBlobBytes;
const maxCharacters = 2 * maxBytes;
/** A security key sets it when somebody touched it. */
const userPresent = 0x01;

/** An algorithm that a key may sign with; null hashes inside of it. */
type Hash = "sha256" | "sha384" | "sha512" | null;
const algorithms: Readonly<Record<SshKeyType, Readonly<Record<string, Hash>>>> = {
  "ssh-ed25519": { "ssh-ed25519": null },
  "ecdsa-sha2-nistp256": { "ecdsa-sha2-nistp256": "sha256" },
  "ecdsa-sha2-nistp384": { "ecdsa-sha2-nistp384": "sha384" },
  "ecdsa-sha2-nistp521": { "ecdsa-sha2-nistp521": "sha512" },
  // Not "ssh-rsa" itself: that is SHA-1.
  "ssh-rsa": { "rsa-sha2-256": "sha256", "rsa-sha2-512": "sha512" },
  "sk-ssh-ed25519@openssh.com": { "sk-ssh-ed25519@openssh.com": null },
  "sk-ecdsa-sha2-nistp256@openssh.com": { "sk-ecdsa-sha2-nistp256@openssh.com": "sha256" },
};

/** What a signature is checked against; all of it but `armored` is the server's own. */
export interface SignatureClaim {
  /** What `ssh-keygen -Y sign` wrote. */
  readonly armored: string;
  readonly keyBlob: Buffer;
  readonly namespace: string;
  readonly message: string;
}

/** Whether the key's holder signed the message for this namespace. False for whatever is wrong. */
export function verifySshSignature({ armored, ...claim }: SignatureClaim): boolean {
  try {
    return isSigned(dearmor(armored), claim);
  } catch (cause) {
    if (cause instanceof Malformed) return false;
    throw cause;
  }
}

function dearmor(armored: string): Buffer {
  if (armored.length > maxCharacters) throw new Malformed("it is too long");
  const blob = fromBase64(armor.exec(armored)?.[1]?.replaceAll(/[\r\n]/g, "") ?? "");
  if (!blob || blob.length > maxBytes) throw new Malformed("it is not an SSH signature");
  return blob;
}

function isSigned(blob: Buffer, claim: Omit<SignatureClaim, "armored">): boolean {
  const reader = new SshReader(blob);
  if (reader.take(magic.length).toString("latin1") !== magic) return false;
  if (reader.uint32() !== 1) return false;
  if (!reader.string().equals(claim.keyBlob)) return false;
  if (!reader.string().equals(Buffer.from(claim.namespace))) return false;
  // It means nothing yet, but it is signed: what is put into it later breaks the signature.
  const reserved = reader.string();
  const hash = reader.name();
  if (hash !== "sha256" && hash !== "sha512") return false;
  const signature = new SshReader(reader.string());
  reader.end();
  const signed = Buffer.concat([
    Buffer.from(magic),
    sshString(claim.namespace),
    sshString(reserved),
    sshString(hash),
    sshString(createHash(hash).update(claim.message).digest()),
  ]);
  return isSignedBy(parseSshKey(claim.keyBlob), signature, signed);
}

/** RFC 8332, RFC 5656, RFC 8709 and OpenSSH's PROTOCOL.u2f. */
function isSignedBy(key: SshKey, reader: SshReader, message: Buffer): boolean {
  const algorithm = reader.name();
  const allowed = algorithms[key.type];
  const hash = Object.hasOwn(allowed, algorithm) ? allowed[algorithm] : undefined;
  if (hash === undefined) return false;
  const signature = fixedLength(key, reader.string());
  const signed = key.application ? asSecurityKey(key.application, reader, message) : message;
  reader.end();
  return verify(hash, signed, { key: key.key, dsaEncoding: "ieee-p1363" }, signature);
}

/** A signature in the form that only depends on the key's size. */
function fixedLength({ key, bytes }: SshKey, signature: Buffer): Buffer {
  if (key.asymmetricKeyType === "ec") {
    const reader = new SshReader(signature);
    const halves = [reader.positive(), reader.positive()];
    reader.end();
    if (halves.some((half) => half.length > bytes)) throw new Malformed("a number is too long");
    return Buffer.concat(halves.flatMap((half) => [Buffer.alloc(bytes - half.length), half]));
  }
  const expected = key.asymmetricKeyType === "rsa" ? bytes : 2 * bytes;
  if (signature.length !== expected) throw new Malformed("the signature has the wrong length");
  return signature;
}

/** What a security key signs instead of a message. */
function asSecurityKey(application: Buffer, reader: SshReader, message: Buffer): Buffer {
  const flagsAndCounter = reader.take(5);
  if (((flagsAndCounter[0] ?? 0) & userPresent) === 0)
    throw new Malformed("nobody touched the key");
  return Buffer.concat([digest(application), flagsAndCounter, digest(message)]);
}

function digest(bytes: Buffer): Buffer {
  return createHash("sha256").update(bytes).digest();
}
