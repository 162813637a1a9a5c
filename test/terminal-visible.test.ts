import { expect, test } from "bun:test";
import * as fc from "fast-check";
import { wrap } from "../src/terminal/screen.ts";
import { inline, json, visible } from "../src/terminal/visible.ts";

const anything = fc.string({ unit: "binary" });
const tricky = [
  "a",
  " ",
  "\\",
  "\n",
  "\r",
  "\t",
  "\0",
  "\u001b",
  "\u007f",
  "\u009b",
  "\u200b",
  "\u200d",
];
const worse = [
  "\u202e",
  "\u2028",
  "\u2066",
  "\ud83d",
  "\ude00",
  "\u{1f469}",
  "\u{e0041}",
  "\ufe0f",
];
const controls = fc.array(fc.constantFrom(...tricky, ...worse)).map((parts) => parts.join(""));

test("visible lets nothing through that steers a terminal or cannot be seen, but line feeds and tabs", () => {
  fc.assert(
    fc.property(fc.oneof(anything, controls), (text) => {
      expect(visible(text).replaceAll(/[\n\t\u200d]/g, "")).not.toMatch(/[\p{C}\u2028\u2029]/u);
      expect(inline(text)).not.toContain("\n");
    }),
    { numRuns: 2_000 },
  );
});

test("visible spells out what it does not show, and leaves what people write", () => {
  expect(visible("\u001b[31m\u202etxt.exe\u0007")).toBe("\\x1b[31m\\u{202e}txt.exe\\x07");
  expect(visible("one\r\ntwo\rthree")).toBe("one\ntwo\\x0dthree");
  const texts = ["Zwölf\tBoxkämpfer", "你好", "שלום", "👩‍👩‍👧 👍🏽 🏳️‍🌈", "a\nb", "e\u0301"];
  for (const text of texts) expect(visible(text)).toBe(text);
  expect(visible("rm\u200d -rf")).toBe("rm\\u{200d} -rf");
});

test("json says the same to a program, and is harmless to a terminal", () => {
  fc.assert(
    fc.property(fc.oneof(anything, controls), (text) => {
      const line = json({ text });
      expect(JSON.parse(line)).toEqual({ text });
      expect(line.replaceAll("\u200d", "")).not.toMatch(/[\p{C}\u2028\u2029]/u);
    }),
    { numRuns: 2_000 },
  );
});

test("wrap loses no character but blanks at the ends of rows, and no row is too wide", () => {
  fc.assert(
    fc.property(
      fc.stringMatching(/^[a-c你 ]{0,80}$/),
      fc.integer({ min: 4, max: 20 }),
      (text, columns) => {
        const rows = wrap(text, columns);
        for (const row of rows) expect(Bun.stringWidth(row)).toBeLessThanOrEqual(columns);
        expect(rows.join("").replaceAll(" ", "")).toBe(text.replaceAll(" ", ""));
      },
    ),
    { numRuns: 2_000 },
  );
});

test("wrap breaks a text of marks that have no width", () => {
  const rows = wrap("\u0301".repeat(2_000), 10);
  expect(rows.length).toBeGreaterThan(10);
  expect(rows.join("")).toHaveLength(2_000);
});
