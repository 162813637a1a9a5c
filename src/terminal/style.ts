import type { Tone } from "./narration.ts";

const codes = { bold: "1", dim: "2", red: "31", green: "32", yellow: "33", blue: "34", grey: "90" };
export type Colour = keyof typeof codes;

/** Colours text or, where nobody wants colours, does not. */
export type Paint = (colour: Colour, text: string) => string;

const colours = {
  prompt: "bold",
  tool: "blue",
  detail: "dim",
  notice: "yellow",
  error: "red",
  ask: "yellow",
} as const satisfies Record<Tone, Colour>;

/** How text is coloured on a stream: not in a pipe, nor against NO_COLOR (no-color.org). */
export function paintFor(stream: { readonly isTTY?: boolean }): Paint {
  const wanted =
    stream.isTTY === true && !process.env["NO_COLOR"] && process.env["TERM"] !== "dumb";
  return (colour, text) => (wanted ? `\u001b[${codes[colour]}m${text}\u001b[0m` : text);
}

/** A line as its tone looks. */
export function toned(paint: Paint, { tone, text }: { tone: Tone; text: string }): string {
  return text
    .split("\n")
    .map((line) => paint(colours[tone], line))
    .join("\n");
}
