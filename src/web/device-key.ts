import { clear, get, set } from "idb-keyval";
import { base64, join, mpint, strings } from "./ssh-wire.ts";

const algorithm = { name: "ECDSA", namedCurve: "P-256" } as const;
const keyType = "ecdsa-sha2-nistp256";
const stored = "device";

/** Who this browser is to the server that it was paired with. The private key cannot be read. */
export interface Identity {
  readonly keys: CryptoKeyPair;
  /** The fingerprint of the server's key when it was paired. */
  readonly server: string;
}

/** What ties a signature to one connection of one server. */
export interface Binding {
  readonly audience: string;
  readonly server: string;
  readonly challenge: string;
}

/** The identity that a pairing left here, if there was one. */
export async function loadIdentity(): Promise<Identity | undefined> {
  return await get<Identity>(stored);
}

export async function saveIdentity(identity: Identity): Promise<void> {
  await set(stored, identity);
}

/** Forgets all that this browser has kept: its key, and what somebody wrote. */
export async function forgetIdentity(): Promise<void> {
  await clear();
}

/** A key of this device's own, which the browser signs with and never shows. */
export async function newKeys(): Promise<CryptoKeyPair> {
  return await crypto.subtle.generateKey(algorithm, false, ["sign", "verify"]);
}

/** The public key as SSH writes it (RFC 5656, section 3.1). */
export async function keyBlob({ publicKey }: CryptoKeyPair): Promise<Uint8Array<ArrayBuffer>> {
  const point = new Uint8Array(await crypto.subtle.exportKey("raw", publicKey));
  return strings(keyType, "nistp256", point);
}

/** As SSH shows keys: `SHA256:` and its digest in base64, without padding. */
export async function fingerprintOf(blob: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", blob));
  return `SHA256:${base64(digest).replace(/=+$/, "")}`;
}

/** Six digits of a key: the terminal that lets the device in shows the same ones. */
export async function digitsOf(blob: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", blob);
  return String(new DataView(digest).getUint32(0) % 1_000_000).padStart(6, "0");
}

/** The text that proves the key for one connection. */
export function loginText(binding: Binding): string {
  return `pocket-agent-auth-v1\n${bound(binding)}`;
}

/** The texts that a pairing's two sides prove the code with: ours, and then the server's. */
export function pairingTexts(binding: Binding, device: { blob: Uint8Array; name: string }) {
  const rest = `${bound(binding)}key=${base64(device.blob)}\nname=${device.name}\n`;
  return { ours: `pocket-agent-pair-v1\n${rest}`, theirs: `pocket-agent-pair-ack-v1\n${rest}` };
}

/** HMAC-SHA256 of a text, in base64. */
export async function authenticate(code: Uint8Array<ArrayBuffer>, text: string): Promise<string> {
  const hash = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", code, hash, false, ["sign"]);
  const mac = await crypto.subtle.sign("HMAC", key, new TextEncoder().encode(text));
  return base64(new Uint8Array(mac));
}

/** An armored SSH signature (PROTOCOL.sshsig of OpenSSH) of a text, good for one purpose. */
export async function sign(
  keys: CryptoKeyPair,
  text: string,
  purpose: "auth@pocket-agent" | "pair@pocket-agent",
): Promise<string> {
  const magic = new TextEncoder().encode("SSHSIG");
  const digest = new Uint8Array(
    await crypto.subtle.digest("SHA-512", new TextEncoder().encode(text)),
  );
  const signed = join(magic, strings(purpose, "", "sha512", digest));
  const hash = { ...algorithm, hash: "SHA-256" };
  const raw = new Uint8Array(await crypto.subtle.sign(hash, keys.privateKey, signed));
  const numbers = strings(mpint(raw.subarray(0, 32)), mpint(raw.subarray(32)));
  const blob = join(
    magic,
    Uint8Array.of(0, 0, 0, 1),
    strings(await keyBlob(keys), purpose, "", "sha512", strings(keyType, numbers)),
  );
  const lines = base64(blob).match(/.{1,70}/g) ?? [];
  return ["-----BEGIN SSH SIGNATURE-----", ...lines, "-----END SSH SIGNATURE-----", ""].join("\n");
}

function bound({ audience, server, challenge }: Binding): string {
  return `audience=${audience.toLowerCase()}\nserver=${server}\nchallenge=${challenge}\n`;
}
