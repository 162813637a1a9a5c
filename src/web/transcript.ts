/** What a conversation shows, made of its events: rules alone, so that they can be tested. */
import type { Actor, PermissionRequest, ProjectState, Resolution } from "../contract/messages.ts";
import { type Json, list, number, object, text } from "./json.ts";

/** One event, in the shape of the history. */
export interface Entry {
  readonly seq: number;
  readonly timestamp: string;
  /** In characters, as it was sent. */
  readonly size: number;
  readonly direction: "client" | "claude" | "server";
  readonly message: Readonly<Record<string, unknown>>;
}

export interface ToolResult {
  readonly text: string;
  readonly images: readonly { readonly mediaType: string; readonly data: string }[];
  readonly failed: boolean;
}

export interface ToolItem {
  readonly kind: "tool";
  readonly key: string;
  readonly id: string;
  readonly name: string;
  readonly input: Readonly<Record<string, unknown>>;
  readonly result?: ToolResult;
  readonly resolution?: Resolution;
  /** The run has ended, so that no result will come. */
  readonly over?: true;
  /** What a sub-agent did. */
  readonly children: readonly Item[];
}

export interface QueuedPrompt {
  readonly executionId: string;
  readonly text: string;
}

interface PromptItem extends QueuedPrompt {
  readonly kind: "prompt";
  readonly key: string;
  readonly at: string;
  readonly images: number;
  readonly device: Actor | null;
}

/** What one line or card of a conversation shows. */
export type Item =
  | PromptItem
  | { readonly kind: "text" | "thinking"; readonly key: string; readonly text: string }
  | ToolItem
  | {
      readonly kind: "notice" | "error";
      readonly key: string;
      readonly code: string;
      readonly text: string;
    }
  | { readonly kind: "mark"; readonly key: string; readonly text: string }
  | {
      readonly kind: "result";
      readonly key: string;
      readonly end: "done" | "stopped" | "failed";
      readonly text: string;
      readonly durationMs: number;
      readonly costUsd?: number;
    };

/** A conversation as far as it is loaded. It grows at the end, and is made anew at the beginning. */
export class Transcript {
  readonly items: Item[] = [];
  /** By execution id, in their order. */
  readonly queued = new Map<string, QueuedPrompt>();
  /** What the agent said last about itself. */
  commands: readonly string[] = [];
  readonly #requests = new Map<string, PermissionRequest>();
  #cost: number | undefined;

  constructor(entries: readonly Entry[] = []) {
    for (const entry of entries) this.append(entry);
  }

  append(entry: Entry): void {
    const { message, seq } = entry;
    const key = String(seq);
    if (entry.direction === "client") this.#prompt(entry);
    else if (entry.direction === "claude") this.#agent(key, message);
    else this.#server(key, text(message["type"]), object(message["data"]));
  }

  #prompt(entry: Entry): void {
    const item = promptOf(entry);
    this.queued.delete(item.executionId);
    this.items.push(item);
  }

  #agent(key: string, line: Json): void {
    const parent = text(line["parent_tool_use_id"] ?? "");
    if (line["type"] === "assistant") {
      for (const [index, block] of blocks(line).entries()) {
        const item = shown(`${key}.${index}`, block);
        if (item) this.#push(item, parent);
      }
    } else if (line["type"] === "user") {
      for (const [index, block] of blocks(line).entries())
        this.#said(`${key}.${index}`, block, parent);
    } else if (line["type"] === "result") this.#end(result(key, line));
    else if (line["type"] === "system" && line["subtype"] === "init") {
      this.commands = list(line["slash_commands"]).map(text);
    }
  }

  /** A tool that has given nothing back until now will not any more. */
  #end(item: Item): void {
    for (let at = this.items.length - 1; at >= 0; at -= 1) {
      const before = this.items[at];
      if (!before || before.kind === "result") break;
      if (before.kind === "tool" && !before.result) this.items[at] = { ...before, over: true };
    }
    this.items.push(item);
  }

  /** A block that came in the agent's own lines as if a user had said it. */
  #said(key: string, block: Json, parent: string): void {
    if (block["type"] === "tool_result")
      return void this.#change(text(block["tool_use_id"]), { result: toolResult(block) });
    if (block["type"] !== "text") return;
    // A sub-agent's own prompt stands in the card of the tool that began it.
    if (parent === "") this.#push({ kind: "mark", key, text: text(block["text"]) });
  }

  #server(key: string, type: string, data: Json): void {
    if (type === "project_state") return this.#state(data as unknown as ProjectState);
    if (type === "permission_request") {
      const request = data as unknown as PermissionRequest;
      this.#requests.set(request.permission_id, request);
    } else if (type === "permission_resolved") {
      const resolution = data as unknown as Resolution;
      const request = this.#requests.get(resolution.permission_id);
      this.#requests.delete(resolution.permission_id);
      if (request?.tool_use_id) this.#change(request.tool_use_id, { resolution });
    } else if (type === "error" || type === "notice")
      this.#push({ kind: type, key, code: text(data["code"]), text: text(data["message"]) });
    else if (type === "session_reset")
      this.#push({ kind: "mark", key, text: "A new session begins here" });
    else if (type === "execution_queued") {
      const { execution_id: id, prompt: said } = data;
      if (typeof id === "string" && typeof said === "string")
        this.queued.set(id, { executionId: id, text: said });
    } else if (type === "execution_cancelled") {
      this.queued.delete(text(data["execution_id"]));
      this.#push({ kind: "mark", key, text: "A queued prompt was taken back" });
    }
  }

  /** The cost of a run is what the project's total grew by. */
  #state({ usage }: ProjectState): void {
    const before = this.#cost;
    this.#cost = usage.cost_usd;
    const at = this.items.findLastIndex(({ kind }) => kind === "result");
    const item = this.items[at];
    if (before === undefined || item?.kind !== "result" || item.costUsd !== undefined) return;
    this.items[at] = { ...item, costUsd: usage.cost_usd - before };
  }

  #push(item: Item, parent = ""): void {
    const child = (tool: ToolItem) => ({ children: [...tool.children, item] });
    // The card that it belongs into may be on a page that is not loaded.
    if (parent === "" || !this.#change(parent, child)) this.items.push(item);
  }

  /** Puts a changed card in a tool's place, and in that of every card around it. */
  #change(id: string, change: Change): boolean {
    for (let at = this.items.length - 1; at >= 0; at -= 1) {
      const item = this.items[at];
      const other = item?.kind === "tool" ? changed(item, id, change) : undefined;
      if (!other) continue;
      this.items[at] = other;
      return true;
    }
    return false;
  }
}

type Change = Partial<ToolItem> | ((tool: ToolItem) => Partial<ToolItem>);

/** A card with the card of `id` in it changed; undefined if that is not in it. */
function changed(tool: ToolItem, id: string, change: Change): ToolItem | undefined {
  if (tool.id === id) return { ...tool, ...(typeof change === "function" ? change(tool) : change) };
  for (const [at, child] of tool.children.entries()) {
    const other = child.kind === "tool" ? changed(child, id, change) : undefined;
    if (other) return { ...tool, children: tool.children.with(at, other) };
  }
  return undefined;
}

function promptOf({ seq, timestamp, message }: Entry): PromptItem {
  const data = object(message["data"]);
  return {
    kind: "prompt",
    key: String(seq),
    at: timestamp,
    text: text(data["prompt"]),
    images: number(data["images"]),
    device: (data["device"] ?? null) as Actor | null,
    executionId: text(data["execution_id"]),
  };
}

function shown(key: string, block: Json): Item | undefined {
  if (block["type"] === "text") return { kind: "text", key, text: text(block["text"]) };
  if (block["type"] === "thinking") {
    const thought = text(block["thinking"]);
    return thought === "" ? undefined : { kind: "thinking", key, text: thought };
  }
  if (block["type"] !== "tool_use") return undefined;
  const [id, name] = [text(block["id"]), text(block["name"])];
  return { kind: "tool", key, id, name, input: object(block["input"]), children: [] };
}

function result(key: string, line: Json): Item {
  const durationMs = number(line["duration_ms"]);
  // Somebody stopped it: that is no failure.
  if (text(line["terminal_reason"]).startsWith("aborted"))
    return { kind: "result", key, end: "stopped", text: "", durationMs };
  if (line["is_error"] !== true) return { kind: "result", key, end: "done", text: "", durationMs };
  const errors = list(line["errors"]).map(text).join("\n");
  const why = errors || text(line["result"] ?? line["subtype"]);
  return { kind: "result", key, end: "failed", text: why, durationMs };
}

function toolResult(block: Json): ToolResult {
  const { content } = block;
  const failed = block["is_error"] === true;
  if (typeof content === "string") return { text: content, images: [], failed };
  const parts = list(content).map(object);
  const texts = parts.filter(({ type }) => type === "text").map((part) => text(part["text"]));
  const images = parts
    .filter(({ type }) => type === "image")
    .map(({ source }) => object(source))
    .filter(({ type }) => type === "base64")
    .map((source) => ({ mediaType: text(source["media_type"]), data: text(source["data"]) }));
  return { text: texts.join("\n"), images, failed };
}

function blocks(line: Json): readonly Json[] {
  const { content } = object(line["message"]);
  if (typeof content === "string") return [{ type: "text", text: content }];
  return list(content).map(object);
}
