import { addressBytes, canonicalAddress, samePrefix } from "./address.ts";
import { Malformed } from "./ssh-wire.ts";

/** Under which conditions a line of authorized_keys lets its key in. */
export interface KeyOptions {
  /** Patterns of `from=`; undefined lets every address in. */
  readonly from?: readonly AddressPattern[];
  /** In milliseconds of the epoch: the earliest `expiry-time=`. */
  readonly expires?: number;
}

interface AddressPattern {
  readonly negated: boolean;
  /** Takes an address in its canonical spelling. */
  readonly matches: (address: string) => boolean;
}

/** They narrow what a login shell may do, and there is none here. */
const withoutEffect = new Set([
  "restrict",
  "no-agent-forwarding",
  "no-port-forwarding",
  "no-pty",
  "no-touch-required",
  "no-user-rc",
  "no-x11-forwarding",
]);

/** Splits a line where its options end: at the first space that is not in quotes. */
export function splitOptions(line: string): { options: string; rest: string } {
  const [options = ""] = /^(?:"(?:\\"|[^"\\]|\\(?!"))*"|[^ \t"])*/.exec(line) ?? [];
  const rest = line.slice(options.length);
  if (rest.startsWith('"')) throw new Malformed("a quote is not closed");
  return { options, rest: rest.replace(/^[ \t]+/, "") };
}

/** Reads the options of a line as sshd does. Throws Malformed for those that this server cannot keep. */
export function parseOptions(text: string): KeyOptions {
  let from: readonly AddressPattern[] | undefined;
  let expires = Number.POSITIVE_INFINITY;
  for (const { name, value } of listOf(text)) {
    if (name === "from" && value !== undefined) {
      if (from) throw new Malformed('it has "from" twice');
      from = value.split(",").map(addressPattern);
    } else if (name === "expiry-time" && value !== undefined) {
      expires = Math.min(expires, momentOf(value));
    } else if (value !== undefined || !withoutEffect.has(name)) {
      throw new Malformed(`the option "${name}" is not one that this server can keep`);
    }
  }
  return { ...(from && { from }), ...(Number.isFinite(expires) && { expires }) };
}

/** Whether an address may come in by these patterns: one must match, and no negated one may. */
export function matchesAddress(patterns: readonly AddressPattern[], address: string): boolean {
  const canonical = canonicalAddress(address);
  if (canonical === undefined) return false;
  const matching = patterns.filter(({ matches }) => matches(canonical));
  return matching.length > 0 && matching.every(({ negated }) => !negated);
}

/** Names in lower case, and what is behind the equals sign without its quotes. */
function listOf(text: string): { name: string; value: string | undefined }[] {
  const shape = /([A-Za-z0-9@.-]+)(?:="((?:\\"|[^"\\]|\\(?!"))*)")?(?:,(?!$)|$)/y;
  const found = [];
  while (shape.lastIndex < text.length) {
    const [, name = "", value] = shape.exec(text) ?? [];
    // A failed match begins again at 0, for ever.
    if (name === "") throw new Malformed("its options are not written as sshd reads them");
    // A backslash escapes a quote and nothing else.
    found.push({ name: name.toLowerCase(), value: value?.replaceAll('\\"', '"') });
  }
  return found;
}

/** A network, or an address with `*` and `?`; names match nobody, for none are looked up. */
function addressPattern(text: string): AddressPattern {
  const negated = text.startsWith("!");
  const pattern = negated ? text.slice(1) : text;
  if (pattern === "") throw new Malformed('"from" has an empty pattern');
  const [base = "", bits, ...more] = pattern.split("/");
  const network = addressBytes(base);
  if (network) return { negated, matches: inNetwork(network, [bits, ...more]) };
  if (bits !== undefined) throw new Malformed('"from" has a network that is none');
  const shape = pattern
    .toLowerCase()
    .replaceAll(/[.+^${}()|[\]\\]/g, String.raw`\$&`)
    .replaceAll(/\*+/g, ".*")
    .replaceAll("?", ".");
  const wildcard = new RegExp(`^${shape}$`);
  return { negated, matches: (address) => wildcard.test(address) };
}

function inNetwork(network: Buffer, [bits, ...more]: (string | undefined)[]) {
  const all = network.length * 8;
  const length = bits === undefined ? all : Number(bits);
  const written = bits === undefined || /^\d{1,3}$/.test(bits);
  if (!written || length > all || more.length > 0)
    throw new Malformed('"from" has a network without a valid length');
  // sshd refuses these too: somebody meant another network than they wrote.
  const first = Buffer.from(network);
  for (let bit = length; bit < all; bit += 1)
    first[bit >> 3] = (first[bit >> 3] ?? 0) & ~(0x80 >> (bit & 7));
  if (!first.equals(network))
    throw new Malformed('"from" has a network whose address is longer than its length');
  return (address: string): boolean => {
    const bytes = addressBytes(address);
    return bytes !== undefined && samePrefix(bytes, network, length);
  };
}

/** `YYYYMMDD[HHMM[SS]][Z]`; without the Z it is the machine's own time. */
function momentOf(text: string): number {
  const shape = /^(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?(Z|UTC)?$/i;
  const match = shape.exec(text);
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] =
    match?.slice(1, 7).map((digits) => Number(digits ?? 0)) ?? [];
  const utc = new Date(Date.UTC(year, month - 1, day, hour, minute, second));
  const written = [year, month, day, hour, minute, second].map((part) => String(part));
  const understood = utc
    .toISOString()
    .slice(0, 19)
    .split(/[-T:]/)
    .map((part) => String(Number(part)));
  // February 30 is some other day, and nobody can say which was meant.
  if (!match || written.join() !== understood.join())
    throw new Malformed("its expiry time is not one that exists");
  if (match[7] !== undefined) return utc.getTime();
  return new Date(year, month - 1, day, hour, minute, second).getTime();
}
