import { randomBytes } from "node:crypto";
import { isIPv6 } from "node:net";
import { renderUnicodeCompact } from "uqr";

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** 16 random bytes, which never travel: a device proves that it was shown them. */
export function newPairingCode(): Buffer {
  return randomBytes(16);
}

/** The code as somebody types it: 26 characters of base32 (RFC 4648), in groups of four. */
export function typedCode(code: Buffer): string {
  return base32(code).replaceAll(/.{4}(?=.)/g, "$&-");
}

/** What the QR code opens. The fragment is not sent to anybody. */
export function pairingUrl(place: {
  readonly host: string;
  readonly port: number;
  /** Whether TLS is on. */
  readonly secure: boolean;
  readonly code: Buffer;
  /** Of the server's key. */
  readonly fingerprint: string;
}): string {
  const { host, port, secure, code, fingerprint } = place;
  const name = isIPv6(host) ? `[${host}]` : host;
  // Encoded, for in a fragment read as a form a plus sign is a space.
  return `http${secure ? "s" : ""}://${name}:${port}/#pair=${base32(code)}&fp=${encodeURIComponent(fingerprint)}`;
}

/** A QR code of letters, for a terminal. */
export function pairingQr(url: string): string {
  return renderUnicodeCompact(url, { border: 2 });
}

function base32(bytes: Buffer): string {
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  const groups = bits.match(/.{1,5}/g) ?? [];
  return groups.map((group) => alphabet[Number.parseInt(group.padEnd(5, "0"), 2)]).join("");
}
