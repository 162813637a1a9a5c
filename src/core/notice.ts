import type { ServerData } from "../contract/messages.ts";
import type { AgentEvent } from "./ports.ts";

type Notice = ServerData<"notice">;

/** What a person should know of a line of the agent; undefined for most lines. */
export function noticeOf(line: AgentEvent): Notice | undefined {
  if (line.type === "rate_limit_event") return rateLimit(line);
  if (line.type !== "system") return undefined;
  switch (line.subtype) {
    case "api_retry":
      return {
        code: "API_RETRY",
        message: `The model's API does not answer as it should (${text(line, "error")}); the agent tries again, up to ${text(line, "max_retries")} times`,
        details: pick(line, ["attempt", "max_retries", "retry_delay_ms", "error_status", "error"]),
      };
    case "model_fallback":
      return {
        code: "MODEL_FALLBACK",
        message: `The agent goes on with the model ${text(line, "fallback_model")} instead of ${text(line, "original_model")}`,
        details: pick(line, ["trigger", "original_model", "fallback_model"]),
      };
    case "permission_denied":
      return {
        code: "PERMISSION_DENIED",
        message: `The permission mode does not allow ${text(line, "tool_name")}; nobody was asked`,
        details: pick(line, ["tool_name", "tool_use_id", "decision_reason_type", "message"]),
      };
    case "status":
      if (line["status"] !== "compacting") return undefined;
      return { code: "COMPACTING", message: "The agent shortens the conversation to make room" };
    case undefined:
    default:
      return undefined;
  }
}

function rateLimit(line: AgentEvent): Notice | undefined {
  const info = line["rate_limit_info"];
  if (typeof info !== "object" || info === null) return undefined;
  const fields: Readonly<Record<string, unknown>> = { ...info };
  if (fields["status"] === "allowed") return undefined;
  const resets = fields["resetsAt"];
  // Seconds since 1970, by the types of the vendor's SDK.
  const resets_at = typeof resets === "number" ? new Date(resets * 1000).toISOString() : null;
  const reached = fields["status"] === "rejected";
  return {
    code: "RATE_LIMIT",
    message: `The account's usage limit is ${reached ? "reached" : "near"}${resets_at ? `; it resets at ${resets_at}` : ""}`,
    details: { ...fields, resets_at },
  };
}

function text(line: AgentEvent, key: string): string {
  const value = line[key];
  return typeof value === "string" || typeof value === "number" ? String(value) : "unknown";
}

function pick(line: AgentEvent, keys: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(keys.filter((key) => key in line).map((key) => [key, line[key]]));
}
