import type { Fields } from "./record.ts";

const CHUNK_CHARACTERS = 12;

/** One piece of an assistant message. */
export type Block =
  | { readonly type: "text"; readonly text: string }
  | { readonly type: "thinking"; readonly thinking: string; readonly signature: string }
  | {
      readonly type: "tool_use";
      readonly id: string;
      readonly name: string;
      readonly input: Fields;
    };

/** An assistant message that is being printed. */
export interface OpenMessage {
  readonly id: string;
  readonly model: string;
  readonly requestId: string;
  blocks: number;
}

/** Prints stream-json lines: writes happen in the order of the calls, awaiting one waits for the reader. */
export class Printer {
  sessionId: string;
  readonly partial: boolean;
  readonly #sink = Bun.stdout.writer();
  #serial = 0;
  #readerGone = false;

  constructor(sessionId: string, partial: boolean) {
    this.sessionId = sessionId;
    this.partial = partial;
  }

  /** A fresh identifier such as `msg_fake000001`. */
  nextId(prefix: string): string {
    this.#serial += 1;
    return `${prefix}${String(this.#serial).padStart(6, "0")}`;
  }

  async raw(bytes: string | Uint8Array): Promise<void> {
    if (this.#readerGone) return;
    try {
      await Promise.all([this.#sink.write(bytes), this.#sink.flush()]);
    } catch {
      // Like the real CLI, which does not notice that nobody reads, and goes on.
      this.#readerGone = true;
    }
  }

  /** A line with its own `uuid` and the session's id. Returns once it was taken. */
  line(fields: Fields): Promise<void> {
    return this.raw(this.encode(fields));
  }

  /** The text of what `line` prints. */
  encode(fields: Fields): string {
    return `${JSON.stringify({ ...fields, uuid: crypto.randomUUID(), session_id: this.sessionId })}\n`;
  }

  /** A line of the control protocol, which has neither. */
  control(fields: Fields): Promise<void> {
    return this.raw(`${JSON.stringify(fields)}\n`);
  }

  system(subtype: string, fields: Fields = {}): Promise<void> {
    return this.line({ type: "system", subtype, ...fields });
  }

  event(event: Fields, extra: Fields = {}): Promise<void> {
    if (!this.partial) return Promise.resolve();
    return this.line({ type: "stream_event", event, parent_tool_use_id: null, ...extra });
  }

  async open(model: string): Promise<OpenMessage> {
    const message = {
      id: this.nextId("msg_fake"),
      model,
      requestId: this.nextId("req_"),
      blocks: 0,
    };
    await this.event(
      { type: "message_start", message: { ...envelope(message), content: [] } },
      { ttft_ms: 1 },
    );
    return message;
  }

  /** What comes before the deltas of a block. */
  start(message: OpenMessage, block: Block): Promise<void> {
    const empty =
      block.type === "text"
        ? { type: "text", text: "" }
        : block.type === "thinking"
          ? { type: "thinking", thinking: "", signature: "" }
          : { ...block, input: {} };
    return this.event({
      type: "content_block_start",
      index: message.blocks,
      content_block: empty,
    });
  }

  delta(message: OpenMessage, delta: Fields): Promise<void> {
    return this.event({ type: "content_block_delta", index: message.blocks, delta });
  }

  /** The assistant line of a block, which comes before its end. */
  async finish(message: OpenMessage, block: Block): Promise<void> {
    await this.line(assistant(message, block));
    await this.event({ type: "content_block_stop", index: message.blocks });
    message.blocks += 1;
  }

  async close(stopReason: string, outputTokens: number): Promise<void> {
    await this.event({
      type: "message_delta",
      delta: { stop_reason: stopReason, stop_sequence: null },
      usage: { output_tokens: outputTokens },
    });
    await this.event({ type: "message_stop" });
  }

  /** What the CLI says itself, in the place of the model. */
  synthetic(text: string, error?: string): Promise<void> {
    return this.line({
      type: "assistant",
      message: {
        id: crypto.randomUUID(),
        container: null,
        model: "<synthetic>",
        role: "assistant",
        stop_details: null,
        stop_reason: "stop_sequence",
        stop_sequence: "",
        type: "message",
        usage: usage(0, 0),
        content: [{ type: "text", text }],
        context_management: null,
      },
      parent_tool_use_id: null,
      ...(error ? { error } : {}),
    });
  }
}

/** An assistant line; unlike the true values in `result`, its usage is that of the start. */
export function assistant(message: OpenMessage, block: Block): Fields {
  return {
    type: "assistant",
    message: { ...envelope(message), content: [block], context_management: null },
    parent_tool_use_id: null,
    request_id: message.requestId,
  };
}

/** The deltas in which a model would send a block. */
export function deltasOf(block: Block): Fields[] {
  if (block.type === "thinking") {
    return [
      { type: "thinking_delta", thinking: block.thinking },
      { type: "signature_delta", signature: block.signature },
    ];
  }
  if (block.type === "text") {
    return chunks(block.text).map((text) => ({ type: "text_delta", text }));
  }
  return chunks(JSON.stringify(block.input)).map((partial_json) => ({
    type: "input_json_delta",
    partial_json,
  }));
}

/** The counters of one or more model calls. */
export function usage(input: number, output: number): Fields {
  return {
    input_tokens: input,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: 0,
    output_tokens: output,
    service_tier: "standard",
  };
}

function envelope(message: OpenMessage): Fields {
  return {
    id: message.id,
    type: "message",
    role: "assistant",
    model: message.model,
    stop_reason: null,
    stop_sequence: null,
    usage: usage(10, 1),
  };
}

function chunks(text: string): string[] {
  // Long texts come in few, large deltas: a test of a 5 MB line is no test of 400 000 small ones.
  const size = Math.max(CHUNK_CHARACTERS, Math.ceil(text.length / 64));
  return text.match(new RegExp(`.{1,${size}}`, "gsu")) ?? [];
}
