/**
 * The CLI's live protocol: one JSON object per line, both ways. What is meant for people becomes
 * an AgentLine; what the two programs say to each other stays between them.
 */
import type { Image } from "../../contract/agent-options.ts";
import type { AgentEvent, AgentLine, ToolAnswer, ToolRequest } from "../../core/ports.ts";
import type { Line } from "../lines.ts";

/** What a line of the CLI's stdout asks of the server. */
export type Incoming =
  | { readonly kind: "pass"; readonly line: AgentLine }
  /** The answer to a control request of ours; `error` is null when it was done. */
  | { readonly kind: "reply"; readonly requestId: string; readonly error: string | null }
  /** A control request that must be refused, or the agent waits for ever. */
  | { readonly kind: "unsupported"; readonly requestId: string }
  | { readonly kind: "nothing" };

type Fields = Readonly<Record<string, unknown>>;

const nothing: Incoming = { kind: "nothing" };

/**
 * Every line is parsed, deltas too: its text goes into frames and the log as it is, and a line
 * that is not JSON would break those.
 */
export function readLine({ text, bytes }: Line): Incoming {
  if (text === null) return unreadable("it is too long", bytes);
  if (text.trim() === "") return nothing;
  const message = parseObject(text);
  const type = message?.["type"];
  if (!message || typeof type !== "string") {
    return unreadable("it is not a JSON object with a type", bytes);
  }
  switch (type) {
    case "stream_event":
      return pass({ kind: "delta", text });
    case "control_request":
      return readRequest(message, bytes);
    case "control_cancel_request":
      return readWithdrawal(message, bytes);
    case "control_response":
      return readReply(message);
    case "keep_alive":
      return nothing;
    default:
      return pass({ kind: "event", text, event: toEvent(type, message) });
  }
}

/** A prompt. The fresh uuid matters: the CLI drops a message whose uuid it has seen. */
export function userMessage(text: string, images: readonly Image[]): string {
  const content = [
    { type: "text", text },
    ...images.map(({ media_type, data }) => ({
      type: "image",
      source: { type: "base64", media_type, data },
    })),
  ];
  return JSON.stringify({
    type: "user",
    message: { role: "user", content },
    parent_tool_use_id: null,
    session_id: "",
    uuid: crypto.randomUUID(),
  });
}

/** Something we want of the CLI. */
export function controlRequest(requestId: string, request: Fields): string {
  return JSON.stringify({ type: "control_request", request_id: requestId, request });
}

/** What a person decided about a tool. */
export function toolAnswer(requestId: string, answer: ToolAnswer): string {
  const response = { subtype: "success", request_id: requestId, response: answer };
  return JSON.stringify({ type: "control_response", response });
}

/** That we do not do what the CLI wants of us. */
export function refusal(requestId: string): string {
  const error = "Not supported";
  const response = { subtype: "error", request_id: requestId, error };
  return JSON.stringify({ type: "control_response", response });
}

function readRequest(message: Fields, bytes: number): Incoming {
  const requestId = message["request_id"];
  if (typeof requestId !== "string") return unreadable("it is a request without an id", bytes);
  const request = message["request"];
  if (!isObject(request) || request["subtype"] !== "can_use_tool" || !isToolRequest(request)) {
    return { kind: "unsupported", requestId };
  }
  return pass({ kind: "request", requestId, request });
}

function readWithdrawal(message: Fields, bytes: number): Incoming {
  const requestId = message["request_id"];
  if (typeof requestId !== "string") return unreadable("it withdraws a request without id", bytes);
  return pass({ kind: "withdrawal", requestId });
}

function readReply(message: Fields): Incoming {
  const response = message["response"];
  if (!isObject(response) || typeof response["request_id"] !== "string") return nothing;
  const error = response["error"];
  const text = typeof error === "string" ? error : "it gave no reason";
  return {
    kind: "reply",
    requestId: response["request_id"],
    error: response["subtype"] === "success" ? null : text,
  };
}

function pass(line: AgentLine): Incoming {
  return { kind: "pass", line };
}

function unreadable(what: string, bytes: number): Incoming {
  return pass({
    kind: "unreadable",
    message: `Cannot pass on a line of the agent: ${what}`,
    bytes,
  });
}

function parseObject(text: string): Fields | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    // Not JSON: the caller says so, with the size instead of the content.
    return undefined;
  }
}

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isToolRequest(request: Fields): request is ToolRequest {
  return typeof request["tool_name"] === "string" && isObject(request["input"]);
}

/** Fields that later code reads as strings are left out where a CLI made them something else. */
function toEvent(type: string, message: Fields): AgentEvent {
  const { subtype, session_id: sessionId } = message;
  return {
    ...message,
    type,
    subtype: typeof subtype === "string" ? subtype : undefined,
    session_id: typeof sessionId === "string" ? sessionId : undefined,
  };
}
