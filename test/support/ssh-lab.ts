import { createHash, createHmac, generateKeyPairSync, type KeyObject, sign } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sshString } from "../../src/access/ssh-wire.ts";

/** A key that the real `ssh-keygen` made and signs with. */
export interface LabKey {
  readonly name: string;
  /** Its private half; the public one is beside it. */
  readonly path: string;
  /** The line of its `.pub` file. */
  readonly line: string;
  readonly blob: Buffer;
  /** As `ssh-keygen -l` prints it. */
  readonly fingerprint: string;
  readonly sign: (message: string, options?: { namespace?: string; hash?: string }) => string;
}

/** A folder with keys of the real OpenSSH, gone when disposed. */
export class SshLab implements Disposable {
  readonly directory = mkdtempSync(join(tmpdir(), "ssh-lab-"));
  #count = 0;

  constructor() {
    if (Bun.which("ssh-keygen")) return;
    throw new Error(
      "Cannot test SSH signatures: ssh-keygen is missing; install it with `apt-get install openssh-client`",
    );
  }

  [Symbol.dispose](): void {
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** Makes a key of a type that `ssh-keygen -t` knows. */
  key(type: string, bits?: number): LabKey {
    this.#count += 1;
    const path = join(this.directory, `key-${this.#count}`);
    const size = bits === undefined ? [] : ["-b", String(bits)];
    run(["ssh-keygen", "-q", "-t", type, ...size, "-N", "", "-C", "a comment", "-f", path]);
    const line = readFileSync(`${path}.pub`, "utf8").trim();
    return {
      name: bits === undefined ? type : `${type} ${bits}`,
      path,
      line,
      blob: Buffer.from(line.split(" ")[1] ?? "", "base64"),
      fingerprint: run(["ssh-keygen", "-l", "-f", `${path}.pub`]).split(" ")[1] ?? "",
      sign: (message, { namespace = "auth@pocket-agent", hash = "sha512" } = {}) =>
        this.#sign(message, ["-f", path, "-n", namespace, "-O", `hashalg=${hash}`]),
    };
  }

  #sign(message: string, options: readonly string[]): string {
    this.#count += 1;
    const path = join(this.directory, `message-${this.#count}`);
    writeFileSync(path, message);
    run(["ssh-keygen", "-q", "-Y", "sign", ...options, path]);
    return readFileSync(`${path}.sig`, "utf8");
  }
}

/** Runs a program to its end and returns what it printed. */
export function run(command: readonly string[], input = ""): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync([...command], { stdin: Buffer.from(input) });
  if (exitCode !== 0) throw new Error(`Cannot run ${command.join(" ")}: ${stderr.toString()}`);
  return stdout.toString();
}

/** The parts of an SSHSIG, each of which a test can get wrong. */
export interface SignatureParts {
  readonly magic?: string;
  readonly version?: number;
  readonly keyBlob: Buffer;
  readonly namespace?: string;
  readonly reserved?: string;
  /** What is in the blob, if that is not what was signed. */
  readonly shownReserved?: string;
  readonly hash?: string;
  readonly message: string;
  /** Bytes behind the blob's end. */
  readonly tail?: string;
  /** Makes the inner signature: algorithm, signature, and what a security key adds. */
  readonly signer: (signed: Buffer) => Buffer;
}

/** Builds an SSHSIG by hand, for what `ssh-keygen` would not write. */
export function craft(parts: SignatureParts): string {
  const { magic = "SSHSIG", version = 1, namespace = "auth@pocket-agent", reserved = "" } = parts;
  const { hash = "sha512", message, keyBlob, tail = "" } = parts;
  const hashed = createHash(hash).update(message).digest();
  const signed = Buffer.concat([
    Buffer.from("SSHSIG"),
    ...[namespace, reserved, hash, hashed].map((part) => sshString(part)),
  ]);
  const number = Buffer.alloc(4);
  number.writeUInt32BE(version);
  const fields = [keyBlob, namespace, parts.shownReserved ?? reserved, hash, parts.signer(signed)];
  const body = fields.map((part) => sshString(part));
  return armor(Buffer.concat([Buffer.from(magic), number, ...body, Buffer.from(tail)]));
}

/** The text form of a signature's bytes. */
export function armor(blob: Buffer): string {
  const lines = blob.toString("base64").match(/.{1,70}/g) ?? [];
  return `-----BEGIN SSH SIGNATURE-----\n${lines.join("\n")}\n-----END SSH SIGNATURE-----\n`;
}

/** The bytes of a signature's text form. */
export function dearmor(armored: string): Buffer {
  return Buffer.from(armored.replaceAll(/-----[A-Z ]+-----/g, ""), "base64");
}

/** A key whose private half the test holds. */
export interface MadeKey {
  readonly blob: Buffer;
  readonly privateKey: KeyObject;
}

/** A key as a browser makes it, or with an application as a security key has it. */
export function makeKey(kind: "ed25519" | "p256", application?: string): MadeKey {
  const { privateKey, publicKey } =
    kind === "ed25519"
      ? generateKeyPairSync("ed25519")
      : generateKeyPairSync("ec", { namedCurve: "P-256" });
  const { x = "", y = "" } = publicKey.export({ format: "jwk" });
  const point = Buffer.concat([
    Buffer.from([4]),
    ...[x, y].map((n) => Buffer.from(n, "base64url")),
  ]);
  const secure = application !== undefined;
  const fields =
    kind === "ed25519"
      ? [secure ? "sk-ssh-ed25519@openssh.com" : "ssh-ed25519", Buffer.from(x, "base64url")]
      : [secure ? "sk-ecdsa-sha2-nistp256@openssh.com" : "ecdsa-sha2-nistp256", "nistp256", point];
  const all = secure ? [...fields, application] : fields;
  return { blob: Buffer.concat(all.map((field) => sshString(field))), privateKey };
}

/** Signs as the key's own kind does. */
export function signWith({ blob, privateKey }: MadeKey, message: Buffer): Buffer {
  const type = blob.subarray(4, 4 + blob.readUInt32BE());
  return Buffer.concat([sshString(type), sshString(rawSignature(privateKey, message))]);
}

/** Signs as a security key does, with the flags that it reports. */
export function signSecurely(
  key: MadeKey,
  message: Buffer,
  seen: { application: string; flags: number; counter: number },
): Buffer {
  const state = Buffer.alloc(5);
  state.writeUInt8(seen.flags);
  state.writeUInt32BE(seen.counter, 1);
  const signed = Buffer.concat([digest(seen.application), state, digest(message)]);
  return Buffer.concat([signWith(key, signed), state]);
}

/** HMAC-SHA256 in base64, as a device computes it. */
export function hmac(key: Buffer, text: string): string {
  return createHmac("sha256", key).update(text).digest("base64");
}

/** A positive number in SSH's encoding. */
export function mpint(number: Buffer): Buffer {
  const from = number.findIndex((byte) => byte !== 0);
  const bytes = number.subarray(Math.max(0, from));
  return sshString((bytes[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.from([0]), bytes]) : bytes);
}

function rawSignature(key: KeyObject, message: Buffer): Buffer {
  if (key.asymmetricKeyType === "ed25519") return sign(null, message, key);
  const raw = sign("sha256", message, { key, dsaEncoding: "ieee-p1363" });
  return Buffer.concat([mpint(raw.subarray(0, 32)), mpint(raw.subarray(32))]);
}

function digest(content: string | Buffer): Buffer {
  return createHash("sha256").update(content).digest();
}
