/**
 * What cannot be seen, steers a terminal, or changes how the rest is seen: control characters, marks
 * of direction and width, unpaired surrogates, fillers. Not line ends and tabs, nor what joins the
 * parts of one emoji.
 */
export const unseen =
  /(?![\n\t])(?!(?<=[\p{Extended_Pictographic}\p{Emoji_Modifier}\ufe0f])\u200d(?=\p{Extended_Pictographic}))(?!(?<=\p{Emoji})[\ufe0e\ufe0f])[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]/gu;

/** The same where a program reads it: there a space that is none is another character too. */
export const unseenInCode = new RegExp(`${unseen.source}|(?! )\\p{Zs}`, "gu");
