import { createHash, createPublicKey, generateKeyPairSync, randomUUID } from "node:crypto";
import {
  closeSync,
  fstatSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { systemCode } from "./storage-fault.ts";

/** Names this server to its clients: the fingerprint of its key, which is made on first use. */
export function serverId(certsDir: string): string {
  const path = join(certsDir, "server.key");
  const key = readKey(path) ?? createKey(certsDir, path);
  const spki = publicKeyOf(path, key);
  return `SHA256:${createHash("sha256").update(spki).digest("base64").replace(/=+$/, "")}`;
}

function readKey(path: string): string | undefined {
  let file: number;
  try {
    file = openSync(path, "r");
  } catch (cause) {
    if (systemCode(cause) === "ENOENT") return undefined;
    throw cause;
  }
  try {
    const { uid, mode } = fstatSync(file);
    if (uid !== process.getuid?.() && uid !== 0) {
      throw new Error(`Cannot use the server key "${path}": it belongs to another user`);
    }
    if ((mode & 0o077) !== 0) {
      throw new Error(`Cannot use the server key "${path}": others may read it; see chmod 600`);
    }
    return readFileSync(file, "utf8");
  } finally {
    closeSync(file);
  }
}

/** Makes the key under another name first, so that there never is half a key. */
function createKey(certsDir: string, path: string): string {
  mkdirSync(certsDir, { recursive: true, mode: 0o700 });
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const pem = privateKey.export({ type: "pkcs8", format: "pem" });
  const draft = `${path}.${randomUUID()}`;
  writeFileSync(draft, pem, { flag: "wx", mode: 0o600, flush: true });
  try {
    linkSync(draft, path);
  } finally {
    unlinkSync(draft);
  }
  const directory = openSync(certsDir, "r");
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
  return pem;
}

function publicKeyOf(path: string, privateKey: string): Buffer {
  try {
    return createPublicKey(privateKey).export({ type: "spki", format: "der" });
  } catch (cause) {
    throw new Error(`Cannot use the server key "${path}": it is not a private key`, { cause });
  }
}
