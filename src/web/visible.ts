import { unseen, unseenInCode } from "../unseen.ts";

/** A stretch of a text, or the number of one character in it that would not be seen. */
export type Stretch =
  | { readonly text: string }
  | { readonly codePoint: string; readonly times: number };

/**
 * A text with everything in it that a person could not see, as numbers such as `U+202E`. Prose may
 * have spaces of other kinds, as French has before an exclamation mark.
 */
export function visible(text: string, kind: "code" | "prose" = "code"): readonly Stretch[] {
  const stretches: Stretch[] = [];
  let from = 0;
  for (const { index, 0: character } of text.matchAll(kind === "prose" ? unseen : unseenInCode)) {
    const last = stretches.at(-1);
    if (index > from) stretches.push({ text: text.slice(from, index) });
    const number = (character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
    const codePoint = `U+${number}`;
    // Thousands of the same are shown as one with their count.
    if (index === from && last && "codePoint" in last && last.codePoint === codePoint)
      stretches[stretches.length - 1] = { codePoint, times: last.times + 1 };
    else stretches.push({ codePoint, times: 1 });
    from = index + character.length;
  }
  if (from < text.length) stretches.push({ text: text.slice(from) });
  return stretches;
}
