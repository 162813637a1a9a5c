import { describe, expect, test } from "bun:test";
import { assert, property, string, uint8Array } from "fast-check";
import { typedCode } from "../src/access/pairing-code.ts";
import { LiveTurn } from "../src/web/live-turn.ts";
import { mpint, pairingCode } from "../src/web/ssh-wire.ts";
import { type Entry, type Item, type ToolItem, Transcript } from "../src/web/transcript.ts";
import { visible } from "../src/web/visible.ts";
import { ago, cost, duration } from "../src/web/wording.ts";

const character = (number: string) => String.fromCodePoint(Number.parseInt(number.slice(2), 16));
const shown = (text: string) =>
  visible(text)
    .map((stretch) =>
      "text" in stretch ? stretch.text : stretch.unseen.map((number) => `<${number}>`).join(""),
    )
    .join("");

describe("visible", () => {
  test("leaves what people write as it is", () => {
    const texts = ["ls -la\n\tx", "Größe 漢字 عربى", "naïve ✓ 👍 👨‍👩‍👧", ""];
    for (const text of texts) expect(shown(text)).toBe(text);
  });

  test("shows what hides, turns around or looks like nothing", () => {
    expect(shown("a\u202eb\u200bc\u0000d\u001be\rf\u00a0g\ufeffh")).toBe(
      "a<U+202E>b<U+200B>c<U+0000>d<U+001B>e<U+000D>f<U+00A0>g<U+FEFF>h",
    );
    expect(visible("Bon\u202f!\u202e", "prose")).toEqual([
      { text: "Bon\u202f!" },
      { unseen: ["U+202E"] },
    ]);
    expect(shown("\u{e0041}\u3164\ud800\u2028")).toBe("<U+E0041><U+3164><U+D800><U+2028>");
  });

  test("loses and adds nothing else, whatever the text", () => {
    assert(
      property(string({ unit: "binary" }), (text) => {
        const back = visible(text).map((stretch) =>
          "text" in stretch ? stretch.text : stretch.unseen.map(character).join(""),
        );
        expect(back.join("")).toBe(text);
      }),
    );
  });
});

describe("a pairing code", () => {
  test("is read as it is shown, in any case and with or without groups", () => {
    assert(
      property(uint8Array({ minLength: 16, maxLength: 16 }), (bytes) => {
        const typed = typedCode(Buffer.from(bytes));
        for (const text of [
          typed,
          typed.toLowerCase(),
          typed.replaceAll("-", " "),
          typed.replaceAll("-", ""),
        ])
          expect(pairingCode(text)).toEqual(Uint8Array.from(bytes));
      }),
    );
  });

  test("is none if letters are missing or wrong", () => {
    for (const text of ["", "ABCD", "A".repeat(25), "A".repeat(27), "0".repeat(26)])
      expect(pairingCode(text)).toBeUndefined();
  });
});

test("a number of a signature has no leading zeros, and is never negative", () => {
  const cases = [
    [[0, 0, 1], [1]],
    [[0x80], [0, 0x80]],
    [
      [0, 0x80, 1],
      [0, 0x80, 1],
    ],
    [[0, 0], []],
  ] as const;
  for (const [bytes, number] of cases)
    expect([...mpint(Uint8Array.from(bytes))]).toEqual([...number]);
});

let seq = 0;
const entry = (direction: Entry["direction"], message: Entry["message"]): Entry => {
  seq += 1;
  return { seq, timestamp: "2026-01-01T00:00:00.000Z", size: 0, direction, message };
};
const said = (content: unknown, more: object = {}) =>
  entry("claude", { type: "assistant", message: { content }, ...more });
const told = (content: unknown, more: object = {}) =>
  entry("claude", { type: "user", message: { content }, ...more });
const of = (...entries: Entry[]) => new Transcript(entries).items;
const use = (id: string, name = "Bash") => ({
  type: "tool_use",
  id,
  name,
  input: { command: "x" },
});
const tool = (item: Item | undefined): ToolItem => {
  if (item?.kind !== "tool") throw new Error("Expected a tool");
  return item;
};

const state = (cost_usd: number) =>
  entry("server", { type: "project_state", data: { usage: { cost_usd } } });
const result = () => entry("claude", { type: "result", is_error: false, duration_ms: 5 });
const end = (terminal_reason: string) =>
  of(
    said([use("a")]),
    entry("claude", { type: "result", is_error: true, terminal_reason, errors: ["why"] }),
  );

describe("a transcript", () => {
  test("puts the result of a tool into its card, in whatever order they come", () => {
    const items = of(
      said([use("a")]),
      said([use("b")]),
      told([{ type: "tool_result", tool_use_id: "b", content: "second", is_error: true }]),
      told([{ type: "tool_result", tool_use_id: "a", content: [{ type: "text", text: "first" }] }]),
    );
    expect(items.map((item) => tool(item).result)).toEqual([
      { text: "first", images: [], failed: false },
      { text: "second", images: [], failed: true },
    ]);
  });

  test("puts what a sub-agent does into the card of the tool that began it", () => {
    const inner = { parent_tool_use_id: "outer" };
    const items = of(
      said([use("outer", "Task")]),
      said([use("inner")], inner),
      told([{ type: "tool_result", tool_use_id: "inner", content: "deep" }], inner),
      said([{ type: "text", text: "own words" }], inner),
    );
    expect(items).toHaveLength(1);
    const { children } = tool(items[0]);
    expect(tool(children[0]).result?.text).toBe("deep");
    expect(children[1]).toMatchObject({ kind: "text", text: "own words" });
  });

  test("says who decided, on the card", () => {
    const request = { permission_id: "p", tool_use_id: "a" };
    const resolution = { permission_id: "p", decision: "deny", device: { id: "d", name: "Phone" } };
    // A request may come before the line of the call, but never before its own answer.
    const items = of(
      entry("server", { type: "permission_request", data: request }),
      said([use("a")]),
      entry("server", { type: "permission_resolved", data: resolution }),
    );
    expect(tool(items[0]).resolution).toMatchObject({
      decision: "deny",
      device: { name: "Phone" },
    });
  });

  test("gives a run the cost by which the project's total grew", () => {
    const costs = of(state(1), result(), state(1.5), result(), state(1.75))
      .filter((item) => item.kind === "result")
      .map((item) => item.costUsd);
    expect(costs).toEqual([0.5, 0.25]);
    // Where the total before is not loaded, nothing is said.
    expect(of(result(), state(3))[0]).not.toHaveProperty("costUsd");
  });

  test("takes any shape of a line for what it can be", () => {
    const odd = [{ toString: 1 }, null, 5, [null], "x", { toString: { valueOf: 1 } }];
    for (const value of odd)
      of(
        said(value),
        said([value, { type: "text", text: value }, { type: "thinking", thinking: value }]),
        said([{ type: "tool_use", id: value, name: value, input: value }]),
        told([{ type: "tool_result", tool_use_id: value, content: value, is_error: value }]),
        told([{ type: "tool_result", tool_use_id: "t", content: [value, { type: "image" }] }]),
        entry("claude", { type: "system", subtype: "init", slash_commands: value }),
        entry("claude", { type: "result", is_error: true, errors: value, duration_ms: value }),
        entry("claude", { type: "result", terminal_reason: value, result: value }),
        entry("claude", { type: value, message: value, parent_tool_use_id: value }),
      );
    const turn = new LiveTurn();
    for (const value of odd)
      for (const line of [
        { event: value },
        delta({ type: "content_block_start", content_block: value }),
        delta({ type: "content_block_delta", delta: value }),
      ])
        turn.delta(line);
    expect(turn.blocks).toEqual([]);
  });

  test("keeps what a sub-agent did whose card is not loaded", () => {
    const inner = { parent_tool_use_id: "on an older page" };
    expect(of(said([{ type: "text", text: "deep" }], inner))).toMatchObject([{ text: "deep" }]);
  });

  test("knows a run that was stopped from one that failed", () => {
    expect(end("aborted_tools")).toMatchObject([{ over: true }, { end: "stopped", text: "" }]);
    expect(end("max_turns")).toMatchObject([{ over: true }, { end: "failed", text: "why" }]);
  });

  test("tells what went wrong, and hides lines that it does not know", () => {
    const items = of(
      entry("claude", {
        type: "result",
        is_error: true,
        subtype: "error_max_turns",
        errors: ["too many"],
      }),
      entry("claude", { type: "of_the_future" }),
      entry("claude", { type: "assistant", message: null }),
      entry("server", { type: "error", data: { code: "EXECUTION_FAILED", message: "It failed" } }),
      entry("server", { type: "notice", data: { code: "api_retry", message: "Again" } }),
    );
    expect(items).toMatchObject([
      { kind: "result", end: "failed", text: "too many" },
      { kind: "error", text: "It failed" },
      { kind: "notice", text: "Again" },
    ]);
  });
});

const delta = (event: object, more: object = {}) => ({ type: "stream_event", event, ...more });
const start = (content_block: object) => delta({ type: "content_block_start", content_block });
const text = (piece: string) =>
  delta({ type: "content_block_delta", delta: { type: "text_delta", text: piece } });

describe("a live turn", () => {
  test("grows by its deltas, and each whole block takes the oldest away", () => {
    const turn = new LiveTurn();
    turn.delta(start({ type: "thinking" }));
    turn.delta(
      delta({ type: "content_block_delta", delta: { type: "thinking_delta", thinking: "hm" } }),
    );
    turn.delta(start({ type: "text" }));
    for (const piece of ["a", "b"]) turn.delta(text(piece));
    expect(turn.blocks).toMatchObject([
      { kind: "thinking", text: "hm" },
      { kind: "text", text: "ab", torn: false },
    ]);
    turn.completed();
    turn.delta(text("c"));
    expect(turn.blocks).toMatchObject([{ kind: "text", text: "abc" }]);
    turn.completed();
    expect(turn.blocks).toEqual([]);
  });

  test("says so if its beginning was missed, and leaves sub-agents out", () => {
    const turn = new LiveTurn();
    turn.delta(text("middle"));
    turn.delta({ ...text("not mine"), parent_tool_use_id: "t" });
    expect(turn.blocks).toMatchObject([{ text: "middle", torn: true }]);
  });
});

test("times and amounts are as people say them", () => {
  expect([800, 42_000, 185_000, 7_440_000].map(duration)).toEqual([
    "0.8 s",
    "42 s",
    "3 min 5 s",
    "2 h 4 min",
  ]);
  expect([0, 0.0039, 0.123, 12].map(cost)).toEqual(["$0", "$0.0039", "$0.12", "$12.00"]);
  const now = Date.parse("2026-01-01T12:00:00Z");
  expect(ago("2026-01-01T11:55:00Z", now)).toBe("5 min ago");
  expect(ago("2026-01-01T09:00:00Z", now)).toBe("3 h ago");
});
