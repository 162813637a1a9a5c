import { isIPv4, isIPv6 } from "node:net";

/**
 * The only spelling of an address: lower case, shortest, without a zone, and IPv4 where IPv6
 * stands for it. Undefined for what is not an address.
 */
export function canonicalAddress(text: string): string | undefined {
  if (isIPv4(text)) return text;
  const [bare = ""] = text.split("%");
  if (!isIPv6(bare)) return undefined;
  const address = new URL(`http://[${bare}]`).hostname.slice(1, -1);
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(address);
  if (!mapped) return address;
  const number = Number.parseInt(`${mapped[1]}${mapped[2]?.padStart(4, "0")}`, 16);
  return [24, 16, 8, 0].map((shift) => (number >>> shift) & 0xff).join(".");
}

/** The 4 or 16 bytes of an address; undefined for what is not one. */
export function addressBytes(text: string): Buffer | undefined {
  const address = canonicalAddress(text);
  if (address === undefined) return undefined;
  if (isIPv4(address)) return Buffer.from(address.split(".").map(Number));
  const [head = [], tail = []] = address
    .split("::")
    .map((half) => half.split(":").filter((group) => group !== ""));
  const zeros = Array.from({ length: 8 - head.length - tail.length }, () => "0");
  const groups = [...head, ...zeros, ...tail].map((group) => group.padStart(4, "0"));
  return Buffer.from(groups.join(""), "hex");
}

/** Whoever has one address of a /64 has them all. */
export function networkOf(address: string): string {
  return prefixOf(address, 4, 8);
}

/** Addresses that somebody who has one of them may well have more of: a /24, a /48, all of loopback. */
export function neighbourhoodOf(address: string): string {
  return prefixOf(address, address.startsWith("127.") ? 1 : 3, 6);
}

function prefixOf(address: string, bytesOf4: number, bytesOf6: number): string {
  const bytes = addressBytes(address);
  return bytes ? bytes.toString("hex", 0, bytes.length === 4 ? bytesOf4 : bytesOf6) : address;
}

/** Whether the first `bits` of two addresses of one family are the same. */
export function samePrefix(a: Buffer, b: Buffer, bits: number): boolean {
  if (a.length !== b.length) return false;
  const whole = Math.floor(bits / 8);
  if (!a.subarray(0, whole).equals(b.subarray(0, whole))) return false;
  const mask = 0xff00 >> (bits % 8);
  return (((a[whole] ?? 0) ^ (b[whole] ?? 0)) & mask & 0xff) === 0;
}
