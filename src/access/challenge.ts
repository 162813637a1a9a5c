import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";

/** The SSHSIG namespaces: a signature for one purpose is none for another. */
export const namespaces = { login: "auth@pocket-agent", pairing: "pair@pocket-agent" } as const;

/** What ties a signature to one connection of one server. All of it is the server's own. */
export interface Binding {
  /** The Host header of the upgrade. */
  readonly audience: string;
  /** The fingerprint of the server's key, which the client has measured. */
  readonly server: string;
  readonly challenge: string;
}

/** What a new device says about itself. */
export interface NewDevice {
  readonly keyBlob: Buffer;
  readonly name: string;
}

/** 32 random bytes in base64, for one connection. */
export function newChallenge(): string {
  return randomBytes(32).toString("base64");
}

/** What a key signs to log in. */
export function loginText(binding: Binding): string {
  return `pocket-agent-auth-v1\n${bound(binding)}`;
}

/** What a new device's key signs, and what the pairing code authenticates. */
export function pairingText(binding: Binding, device: NewDevice): string {
  return `pocket-agent-pair-v1\n${bound(binding)}${described(device)}`;
}

/** What the server authenticates in turn: only one that knows the code can. */
export function acknowledgementText(binding: Binding, device: NewDevice): string {
  return `pocket-agent-pair-ack-v1\n${bound(binding)}${described(device)}`;
}

/** The authentication of a text by a pairing code, in base64. */
export function authenticate(code: Buffer, text: string): string {
  return createHmac("sha256", code).update(text).digest("base64");
}

/** Whether two secrets are the same, in a time that says nothing about either. */
export function sameSecret(a: string, b: string): boolean {
  return timingSafeEqual(digest(a), digest(b));
}

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function bound({ audience, server, challenge }: Binding): string {
  return `audience=${audience.toLowerCase()}\nserver=${server}\nchallenge=${challenge}\n`;
}

function described({ keyBlob, name }: NewDevice): string {
  return `key=${keyBlob.toString("base64")}\nname=${name}\n`;
}
