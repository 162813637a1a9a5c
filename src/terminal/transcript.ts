import * as v from "valibot";
import { ending, type Line, narrate, toolText } from "./narration.ts";
import { inline, visible } from "./visible.ts";
import type { Frame } from "./wire.ts";

/** What comes next: words of the answer, which go on where the last ones ended, or a line of its own. */
export type Piece = { readonly words: string } | Line;

const id = v.optional(v.nullable(v.string()));
const delta = v.looseObject({
  parent_tool_use_id: id,
  event: v.looseObject({
    type: v.string(),
    content_block: v.optional(v.looseObject({ type: v.string() })),
    delta: v.optional(v.looseObject({ type: v.string(), text: v.optional(v.string()) })),
  }),
});
const block = v.looseObject({
  type: v.string(),
  text: v.optional(v.string()),
  name: v.optional(v.string()),
  input: v.optional(v.record(v.string(), v.unknown())),
  content: v.optional(v.unknown()),
  is_error: v.optional(v.boolean()),
});
const turn = v.looseObject({
  parent_tool_use_id: id,
  message: v.looseObject({ content: v.union([v.string(), v.array(block)]) }),
});
type Block = v.InferOutput<typeof block>;

/**
 * Turns the events of a project into something to read. A text is shown as it comes; when all of it
 * follows, only what was not shown yet is added.
 */
export class Transcript {
  /** What was shown of the block that comes just now; undefined between blocks. */
  #shown: string | undefined;
  /** Whether no part of it was missed so far. */
  #whole = false;
  /** The beginning of a character whose rest comes with the next part. */
  #carry = "";

  /** What an event adds. */
  take(frame: Frame): Piece[] {
    // Parts are not repeated: what was shown stands, and the rest comes with the whole.
    if (frame.type === "caught_up") this.#whole = false;
    if (frame.type !== "agent_message") {
      const line = narrate(frame);
      return line ? [line] : [];
    }
    switch (frame.data.type) {
      case "stream_event":
        return this.#part(frame.data);
      case "assistant":
        return this.#turn(frame.data, (one, inner) => this.#said(one, inner));
      case "user":
        return this.#turn(frame.data, outcome);
      case "result": {
        const line = ending(frame.data);
        return line ? [line] : [];
      }
      default:
        return [];
    }
  }

  #part(data: object): Piece[] {
    const parsed = v.safeParse(delta, data);
    if (!parsed.success || parsed.output.parent_tool_use_id) return [];
    const { type, content_block, delta: part } = parsed.output.event;
    if (type === "message_start" || type === "content_block_start") {
      // One that was given up, for another attempt.
      const broken = this.#shown ? [{ words: "\n" }] : [];
      this.#shown = content_block?.type === "text" ? "" : undefined;
      this.#whole = true;
      this.#carry = "";
      return broken;
    }
    if (part?.type !== "text_delta" || this.#shown === undefined || !this.#whole) return [];
    return this.#words(part.text ?? "");
  }

  #turn(data: object, each: (one: Block, inner: boolean) => Piece[]): Piece[] {
    const parsed = v.safeParse(turn, data);
    if (!parsed.success) return [];
    const { message, parent_tool_use_id } = parsed.output;
    const { content } = message;
    if (typeof content === "string") return [];
    return content.flatMap((one) => each(one, Boolean(parent_tool_use_id)));
  }

  #said(one: Block, inner: boolean): Piece[] {
    const indent = inner ? "  " : "";
    if (one.type === "tool_use")
      return [{ tone: "tool", text: `${indent}* ${toolText(one.name ?? "", one.input ?? {})}` }];
    if (one.type !== "text" || one.text === undefined || inner) return [];
    const shown = this.#shown ?? "";
    const goesOn = one.text.startsWith(shown);
    const again = shown !== "" && !goesOn ? [{ words: "\n" }] : [];
    if (!goesOn) this.#carry = "";
    const pieces = this.#words(goesOn ? one.text.slice(shown.length) : one.text);
    const rest = this.#carry === "" ? "" : visible(this.#carry);
    this.#shown = undefined;
    this.#carry = "";
    return [...again, ...pieces, { words: one.text.endsWith("\n") ? rest : `${rest}\n` }];
  }

  #words(text: string): Piece[] {
    this.#shown = (this.#shown ?? "") + text;
    const [, whole = "", carry = ""] =
      /^(.*?)([\r\ud800-\udbff]?)$/s.exec(this.#carry + text) ?? [];
    this.#carry = carry;
    return whole === "" ? [] : [{ words: visible(whole) }];
  }
}

/** What came of a tool, in a line. */
function outcome(one: Block): Piece[] {
  if (one.type !== "tool_result") return [];
  const [first = "", ...more] = resultText(one.content).trim().split("\n");
  const short = inline(first.length > 160 ? `${first.slice(0, 160)}…` : first);
  const rest = more.length > 0 ? ` (${more.length} more lines)` : "";
  return [{ tone: one.is_error ? "error" : "detail", text: `  ${short}${rest}` }];
}

function resultText(content: unknown): string {
  if (typeof content === "string") return content;
  const texts = v.safeParse(v.array(v.looseObject({ text: v.optional(v.string()) })), content);
  return texts.success ? texts.output.map(({ text = "" }) => text).join("\n") : "";
}
