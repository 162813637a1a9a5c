import { readFileSync } from "node:fs";
import type { KeySummary } from "../access/administration.ts";
import { administer, call, type Command, print, UsageError } from "./command.ts";
import { table } from "./table.ts";

export const keys: Command = {
  about: "List, import and remove the SSH keys that may log in",
  usage: ["keys [list]", "keys import FILE", "keys remove FINGERPRINT"],
  details: [
    "FILE has public keys, as ~/.ssh/id_ed25519.pub or an authorized_keys file; - is standard",
    "input. A key has the scope full. FINGERPRINT is as ssh-keygen -l prints it, or its beginning.",
  ],
  async run(argv, env) {
    const from = call(argv, env);
    const [action = "list", argument, ...more] = from.words;
    if (action === "list" && argument === undefined) {
      const result = await administer("keys.list", {}, from);
      print(from, result, () => list(result.keys));
    } else if (action === "import" && argument && more.length === 0) {
      const text = publicKeys(argument);
      const result = await administer("keys.import", { text }, from);
      print(from, result, () =>
        [
          ...result.added.map((key) => `${named(key)} may log in now`),
          ...result.known.map((key) => `${named(key)} could log in before`),
        ].join("\n"),
      );
    } else if (action === "remove" && argument && more.length === 0) {
      const result = await administer("keys.remove", { fingerprint: argument }, from);
      print(from, result, () =>
        [
          `${named(result.key)} is shut out`,
          ...result.left.map((path) => `its line is still in ${path}, and has no effect any more`),
        ].join("\n"),
      );
    } else throw new UsageError("Cannot read the command: see keys --help");
    return 0;
  },
};

/** What somebody wants to let in. A private key is left where it is. */
function publicKeys(path: string): string {
  let text: string;
  try {
    text = readFileSync(path === "-" ? 0 : path, "utf8");
  } catch (cause) {
    const reason = cause instanceof Error && "code" in cause ? String(cause.code) : String(cause);
    const why = { ENOENT: "there is no such file", EACCES: "it may not be read" }[reason];
    throw new Error(`Cannot import ${path}: ${why ?? reason}`, { cause });
  }
  if (/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text))
    throw new Error(
      `Cannot import ${path}: it is a private key, which nobody else should have; import ${path}.pub`,
    );
  return text;
}

/** A comment came from elsewhere, and must not steer the terminal. */
const named = ({ fingerprint, comment }: KeySummary): string =>
  `${fingerprint} ${comment.replaceAll(/\p{C}/gu, "?")}`.trim();

function list(all: readonly KeySummary[]): string {
  if (all.length === 0) return 'No key may log in; "keys import" lets one in';
  return table(
    ["FINGERPRINT", "TYPE", "COMMENT", "CONDITIONS", "FILE"],
    all.map(({ fingerprint, type, comment, restricted, expires, revoked, file }) => [
      fingerprint,
      type,
      comment,
      [
        ...(revoked ? ["revoked"] : []),
        ...(restricted ? ["from"] : []),
        ...(expires === null ? [] : [`until ${expires.slice(0, 16)}`]),
      ].join(", "),
      file,
    ]),
  );
}
