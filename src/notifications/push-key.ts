import { createPrivateKey, generateKeyPairSync } from "node:crypto";
import { join } from "node:path";
import { forbidden, readOwned } from "../access/owned-file.ts";
import { replaceFile } from "../access/state-file.ts";
import { storageFault } from "../adapters/storage-fault.ts";

/** The key by which push services know this server (VAPID, RFC 8292), both halves in base64url. */
export interface PushKey {
  /** An uncompressed point of 65 bytes. */
  readonly publicKey: string;
  readonly privateKey: string;
}

/**
 * Reads the key, or makes it. Devices subscribe with it, and must again when it is lost. Throws a
 * sentence about a file that cannot be used, or a Fault STORAGE_ERROR.
 */
export async function pushKey(dataDir: string): Promise<PushKey> {
  const path = join(dataDir, "push.key");
  const pem = readOwned(path, forbidden.reading)?.toString() ?? (await createKey(path));
  const { kty, crv, x = "", y = "", d = "" } = jwkOf(path, pem);
  if (kty !== "EC" || crv !== "P-256") throw unusable(path);
  const point = [Buffer.of(4), Buffer.from(x, "base64url"), Buffer.from(y, "base64url")];
  return { publicKey: Buffer.concat(point).toString("base64url"), privateKey: d };
}

async function createKey(path: string): Promise<string> {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const pem = privateKey.export({ type: "pkcs8", format: "pem" });
  try {
    await replaceFile(path, pem);
  } catch (error) {
    throw storageFault("make a key for Web Push", error);
  }
  return pem;
}

function jwkOf(path: string, pem: string) {
  try {
    return createPrivateKey(pem).export({ format: "jwk" });
  } catch (cause) {
    throw unusable(path, cause);
  }
}

function unusable(path: string, cause?: unknown): Error {
  const text = `Cannot use "${path}": it is not a P-256 key; restore it, or move it away and subscribe again`;
  return new Error(text, { cause });
}
