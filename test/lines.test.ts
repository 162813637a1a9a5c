import { describe, expect, test } from "bun:test";
import * as fc from "fast-check";
import { LineSplitter, type Line } from "../src/adapters/lines.ts";

/** Cuts bytes at the given places, in any order and possibly twice. */
function cutAt(bytes: Uint8Array, places: readonly number[]): Uint8Array[] {
  const cuts = [0, ...places.map((place) => place % (bytes.length + 1)), bytes.length];
  const sorted = cuts.toSorted((a, b) => a - b);
  return sorted.slice(1).map((end, index) => bytes.slice(sorted[index], end));
}

function splitAll(chunks: readonly Uint8Array[], maxBytes: number): Line[] {
  const splitter = new LineSplitter(maxBytes);
  const lines = chunks.flatMap((chunk) => splitter.push(chunk));
  const last = splitter.end();
  return last ? [...lines, last] : lines;
}

/** What the splitter must come to, said in the plainest way. */
function plainly(text: string, maxBytes: number): Line[] {
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  return lines.map((line) => {
    const bytes = Buffer.byteLength(line);
    return { text: bytes > maxBytes ? null : line.replace(/\r$/, ""), bytes };
  });
}

const texts = fc
  .array(
    fc.oneof(fc.string({ unit: "binary" }), fc.constantFrom("\n", "\r\n", "\r", "\u2028", "👋")),
  )
  .map((parts) => parts.join(""));

describe("LineSplitter", () => {
  test("gives the lines of any text, wherever its bytes are cut and whatever is too long", () => {
    fc.assert(
      fc.property(texts, fc.array(fc.nat()), fc.integer({ min: 1, max: 40 }), (text, cuts, max) => {
        const bytes = new TextEncoder().encode(text);
        const wellFormed = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
        expect(splitAll(cutAt(bytes, cuts), max)).toEqual(plainly(wellFormed, max));
      }),
      { numRuns: 1000 },
    );
  });

  test("replaces bytes that are not UTF-8 as a decoder of the whole would", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), fc.array(fc.nat()), (bytes, cuts) => {
        const line = bytes.filter((byte) => byte !== 10 && byte !== 13);
        const expected = new TextDecoder("utf-8", { ignoreBOM: true }).decode(line);
        const [first] = splitAll([...cutAt(line, cuts), Uint8Array.of(10)], 100);
        expect(first?.text).toBe(expected);
      }),
    );
  });

  test("passes a line of exactly the limit and drops one of a byte more", () => {
    const text = `${"a".repeat(16)}\n${"b".repeat(17)}\nc\n`;
    expect(splitAll([Buffer.from(text)], 16)).toEqual([
      { text: "a".repeat(16), bytes: 16 },
      { text: null, bytes: 17 },
      { text: "c", bytes: 1 },
    ]);
  });

  test("keeps nothing of an over-long line that arrives in pieces, and goes on after it", () => {
    const splitter = new LineSplitter(1024);
    const piece = new Uint8Array(64 * 1024).fill(97);
    const before = process.memoryUsage.rss();
    for (let index = 0; index < 4096; index += 1) expect(splitter.push(piece)).toBeEmpty();
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * 1024 * 1024);
    expect(splitter.push(Buffer.from("\nnext\n"))).toEqual([
      { text: null, bytes: 4096 * 64 * 1024 },
      { text: "next", bytes: 4 },
    ]);
  });

  test("puts a line of 16 MiB together from chunks of a pipe", () => {
    const text = "é".repeat(8 * 1024 * 1024);
    const bytes = Buffer.from(`${text}\n`);
    const chunks: Uint8Array[] = [];
    for (let at = 0; at < bytes.length; at += 4099) chunks.push(bytes.subarray(at, at + 4099));
    const [line] = splitAll(chunks, 16 * 1024 * 1024);
    expect(line?.text === text).toBe(true);
  });
});
