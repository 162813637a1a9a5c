import { type KeyOptions, matchesAddress, parseOptions, splitOptions } from "./key-options.ts";
import { fingerprint, nameIn, parseSshKey, type SshKeyType } from "./ssh-key.ts";
import { fromBase64, Malformed } from "./ssh-wire.ts";

/** A line that lets a key in. */
export interface AuthorizedKey {
  readonly type: SshKeyType;
  readonly blob: Buffer;
  readonly fingerprint: string;
  readonly comment: string;
  readonly options: KeyOptions;
}

/** Who comes with a key, and when. */
export interface Visit {
  readonly address: string;
  readonly now: Date;
}

/** Lines longer than sshd's are nobody's. */
const maxLine = 16_384;

/** The keys in the text of an authorized_keys file, and the lines that cannot be kept to. */
export function parseAuthorizedKeys(text: string): {
  keys: AuthorizedKey[];
  refused: { line: number; reason: string }[];
} {
  const keys: AuthorizedKey[] = [];
  const refused: { line: number; reason: string }[] = [];
  for (const [index, raw] of text
    .replace(/^\uFEFF/, "")
    .split("\n")
    .entries()) {
    const line = raw.replace(/\r$/, "").replaceAll(/^[ \t]+|[ \t]+$/g, "");
    if (line === "" || line.startsWith("#")) continue;
    try {
      keys.push(parseLine(line));
    } catch (cause) {
      if (!(cause instanceof Malformed)) throw cause;
      refused.push({ line: index + 1, reason: cause.message });
    }
  }
  return { keys, refused };
}

/** Whether the line's own conditions let its key in, from there and at that time. */
export function allows({ options }: AuthorizedKey, { address, now }: Visit): boolean {
  const { from, expires } = options;
  if (expires !== undefined && now.getTime() >= expires) return false;
  return from === undefined || matchesAddress(from, address);
}

function parseLine(line: string): AuthorizedKey {
  if (line.length > maxLine) throw new Malformed("the line is too long");
  const { options, rest } = startsWithKey(line) ? { options: "", rest: line } : splitOptions(line);
  const [type = "", base64 = "", ...comment] = rest.split(/[ \t]+/);
  // Before the options, so that a line that holds no key at all is not blamed on them.
  if (type === "") throw new Malformed("there is no key in it");
  const conditions = parseOptions(options);
  const blob = fromBase64(base64);
  if (!blob) throw new Malformed("its key is not in base64");
  if (nameIn(blob) !== type) throw new Malformed("its key is not of the type that it says");
  const key = parseSshKey(blob);
  return {
    type: key.type,
    blob,
    fingerprint: fingerprint(blob),
    comment: comment.join(" "),
    options: conditions,
  };
}

/** Options have no name that looks like a key's type. */
function startsWithKey(line: string): boolean {
  return /^(?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+[ \t]/.test(line);
}
