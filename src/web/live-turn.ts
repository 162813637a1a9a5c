import { type Json, object, text as textOf } from "./json.ts";

/** A block that the agent is still writing. */
export interface LiveBlock {
  readonly kind: "text" | "thinking" | "tool";
  /** What is there of it; of a tool its input, which is not complete JSON yet. */
  readonly text: string;
  /** Of a tool. */
  readonly name: string;
  /** Its beginning was missed. */
  readonly torn: boolean;
}

/** What the agent is writing now, from its deltas, until the whole block replaces it. */
export class LiveTurn {
  #blocks: LiveBlock[] = [];
  /** Pieces that are not joined yet: joining at each of thousands of deltas would take longer. */
  #pieces: string[] = [];

  get blocks(): readonly LiveBlock[] {
    this.#join();
    return this.#blocks;
  }

  /** Takes a `stream_event` line. Those of sub-agents are in their tool's card when they are whole. */
  delta(line: Json): void {
    if (typeof line["parent_tool_use_id"] === "string") return;
    const event = object(line["event"]);
    if (event["type"] === "message_start") this.clear();
    else if (event["type"] === "content_block_start") this.#begin(object(event["content_block"]));
    else if (event["type"] === "content_block_delta") this.#add(object(event["delta"]));
  }

  /** The oldest block came as a whole. */
  completed(): void {
    this.#join();
    this.#blocks.shift();
  }

  clear(): void {
    this.#blocks = [];
    this.#pieces = [];
  }

  #begin(block: Json): void {
    this.#join();
    const kind = block["type"] === "tool_use" ? "tool" : block["type"];
    if (kind !== "text" && kind !== "thinking" && kind !== "tool") return;
    this.#blocks.push({
      kind,
      text: "",
      name: textOf(block["name"]),
      torn: false,
    });
  }

  #add(delta: Json): void {
    const [kind, text] = piece(delta);
    if (!kind || typeof text !== "string") return;
    if (this.#blocks.at(-1)?.kind !== kind) {
      this.#join();
      this.#blocks.push({ kind, text: "", name: "", torn: true });
    }
    this.#pieces.push(text);
  }

  #join(): void {
    const last = this.#blocks.at(-1);
    if (!last || this.#pieces.length === 0) return;
    const text = last.text + this.#pieces.join("");
    this.#pieces = [];
    this.#blocks = [...this.#blocks.slice(0, -1), { ...last, text }];
  }
}

function piece(delta: Json): [LiveBlock["kind"], unknown] | [] {
  if (delta["type"] === "text_delta") return ["text", delta["text"]];
  if (delta["type"] === "thinking_delta") return ["thinking", delta["thinking"]];
  if (delta["type"] === "input_json_delta") return ["tool", delta["partial_json"]];
  return [];
}
