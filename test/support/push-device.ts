import {
  createDecipheriv,
  createECDH,
  createPublicKey,
  hkdfSync,
  randomBytes,
  verify,
} from "node:crypto";
import type { Received } from "./receiver.ts";

const headerBytes = 16 + 4 + 1;

/** A browser that is notified: it has the keys, and reads what only it can (RFC 8291). */
export class PushDevice {
  readonly endpoint: string;
  readonly #keys = createECDH("prime256v1");
  readonly #secret = randomBytes(16);

  constructor(service: URL, name: string = crypto.randomUUID()) {
    this.endpoint = new URL(`/push/${name}`, service).href;
    this.#keys.generateKeys();
  }

  /** What `push_subscribe` takes. */
  get subscription() {
    const p256dh = this.#keys.getPublicKey("base64url");
    return { endpoint: this.endpoint, keys: { p256dh, auth: this.#secret.toString("base64url") } };
  }

  /** Whether a request was sent to this device's address. */
  has({ path }: Received): boolean {
    return path === new URL(this.endpoint).pathname;
  }

  /** Decrypts what was sent. Throws if it is not for this device, or was changed on the way. */
  read({ headers, body }: Received): unknown {
    if (headers.get("content-encoding") !== "aes128gcm") throw new Error("Not aes128gcm");
    const salt = body.subarray(0, 16);
    const length = body.readUInt8(20);
    const sender = body.subarray(headerBytes, headerBytes + length);
    const record = body.subarray(headerBytes + length);
    if (record.length > body.readUInt32BE(16)) throw new Error("More than one record");
    const shared = this.#keys.computeSecret(sender);
    const info = Buffer.concat([Buffer.from("WebPush: info\0"), this.#keys.getPublicKey(), sender]);
    const input = derive(shared, { salt: this.#secret, info, bytes: 32 });
    const key = derive(input, { salt, info: infoOf("aes128gcm"), bytes: 16 });
    const nonce = derive(input, { salt, info: infoOf("nonce"), bytes: 12 });
    const decipher = createDecipheriv("aes-128-gcm", key, nonce);
    decipher.setAuthTag(record.subarray(-16));
    const padded = Buffer.concat([decipher.update(record.subarray(0, -16)), decipher.final()]);
    const end = padded.lastIndexOf(2);
    if (padded.subarray(end + 1).some((byte) => byte !== 0)) throw new Error("Wrong padding");
    return JSON.parse(padded.subarray(0, end).toString());
  }
}

/** What a sender says of itself (VAPID, RFC 8292), if its key has signed it. */
export function claimsOf({ headers }: Received, publicKey: string): Record<string, unknown> {
  const [, token = "", key] =
    /^vapid t=([^,]+), k=(.+)$/.exec(headers.get("authorization") ?? "") ?? [];
  if (key !== publicKey) throw new Error(`Signed by another key: ${key}`);
  const point = Buffer.from(publicKey, "base64url");
  const [x, y] = [point.subarray(1, 33), point.subarray(33)].map((at) => at.toString("base64url"));
  const jwk = { kty: "EC", crv: "P-256", x: x ?? "", y: y ?? "" };
  const [head = "", body = "", signature = ""] = token.split(".");
  const good = verify(
    "sha256",
    Buffer.from(`${head}.${body}`),
    { key: createPublicKey({ key: jwk, format: "jwk" }), dsaEncoding: "ieee-p1363" },
    Buffer.from(signature, "base64url"),
  );
  if (!good) throw new Error("The signature is wrong");
  return JSON.parse(Buffer.from(body, "base64url").toString());
}

const infoOf = (name: string) => Buffer.from(`Content-Encoding: ${name}\0`);

function derive(
  input: Uint8Array,
  { salt, info, bytes }: { salt: Uint8Array; info: Uint8Array; bytes: number },
): Buffer {
  return Buffer.from(hkdfSync("sha256", input, salt, info, bytes));
}
