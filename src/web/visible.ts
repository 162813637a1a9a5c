/**
 * What cannot be seen, or changes how the rest is seen: control characters, marks of direction and
 * width, unpaired surrogates, fillers, and spaces that are none. Line ends and tabs are seen.
 */
const unseen =
  /(?![\n\t ])[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zs}\p{Zl}\p{Zp}\u115F\u1160\u3164\uFFA0]|\u034F|\u17B4|\u17B5/gu;

/** A stretch of a text, or the number of one character in it that would not be seen. */
export type Stretch = { readonly text: string } | { readonly codePoint: string };

/** A text with everything in it that a person could not see, as numbers such as `U+202E`. */
export function visible(text: string): readonly Stretch[] {
  const stretches: Stretch[] = [];
  let from = 0;
  for (const { index, 0: character } of text.matchAll(unseen)) {
    if (index > from) stretches.push({ text: text.slice(from, index) });
    const number = (character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
    stretches.push({ codePoint: `U+${number}` });
    from = index + character.length;
  }
  if (from < text.length) stretches.push({ text: text.slice(from) });
  return stretches;
}
