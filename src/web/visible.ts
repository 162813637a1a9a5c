import { unseen, unseenInCode } from "../unseen.ts";

/** A stretch of a text, or characters one behind the other that would not be seen. */
export type Stretch =
  | { readonly text: string }
  /** As numbers such as `U+202E`. */
  | { readonly unseen: readonly string[] };

/**
 * A text with everything in it that a person could not see, as numbers. Prose may have spaces of
 * other kinds, as French has before an exclamation mark.
 */
export function visible(text: string, kind: "code" | "prose" = "code"): readonly Stretch[] {
  const stretches: Stretch[] = [];
  let run: string[] = [];
  let from = 0;
  for (const { index, 0: character } of text.matchAll(kind === "prose" ? unseen : unseenInCode)) {
    if (index > from || run.length === 0) {
      if (index > from) stretches.push({ text: text.slice(from, index) });
      run = [];
      stretches.push({ unseen: run });
    }
    const number = (character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
    run.push(`U+${number}`);
    from = index + character.length;
  }
  if (from < text.length) stretches.push({ text: text.slice(from) });
  return stretches;
}
