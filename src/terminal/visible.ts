import { unseen } from "../unseen.ts";

/**
 * Text as it can be shown: control characters (escape sequences begin with one), invisible ones and
 * those that change the direction of writing are spelled out, such as `\x1b` and `\u{202e}`.
 */
export function visible(text: string): string {
  return text.replaceAll("\r\n", "\n").replace(unseen, spelled);
}

/** The same, for within one line. */
export function inline(text: string): string {
  return visible(text).replaceAll("\n", "\\n").replaceAll("\t", " ");
}

/** A value as JSON that is the same to a program, and harmless on a terminal. */
export function json(value: unknown): string {
  return JSON.stringify(value).replace(unseen, (character) =>
    Array.from(
      { length: character.length },
      (_, at) => `\\u${character.charCodeAt(at).toString(16).padStart(4, "0")}`,
    ).join(""),
  );
}

function spelled(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  const hex = code.toString(16);
  return code < 0x100 ? `\\x${hex.padStart(2, "0")}` : `\\u{${hex}}`;
}
