import * as v from "valibot";
import { Fault } from "../contract/errors.ts";
import type { AgentEvent, AgentExit } from "./ports.ts";

const number = v.fallback(v.number(), 0);
/** The agent's `result` line, as far as it matters here; anything missing counts as nothing. */
const result = v.looseObject({
  is_error: v.fallback(v.boolean(), false),
  subtype: v.fallback(v.string(), ""),
  result: v.fallback(v.string(), ""),
  errors: v.fallback(v.array(v.string()), []),
  total_cost_usd: number,
  origin: v.optional(v.unknown()),
  usage: v.fallback(
    v.looseObject({
      input_tokens: number,
      output_tokens: number,
      cache_creation_input_tokens: number,
      cache_read_input_tokens: number,
    }),
    {
      input_tokens: 0,
      output_tokens: 0,
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: 0,
    },
  ),
});

export interface AgentResult {
  /** Why the turn failed. Errors of the API and of the login come as `subtype: "success"`. */
  readonly fault: Fault | undefined;
  /** Of the process so far, not of this turn. */
  readonly totalCostUsd: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
  /** The session that was to be resumed does not exist. */
  readonly sessionMissing: boolean;
  /** Nobody's prompt: the agent began this turn by itself. */
  readonly unsolicited: boolean;
}

/** Reads a `result` line. */
export function readResult(event: AgentEvent): AgentResult {
  const line = v.parse(result, event);
  const { usage } = line;
  const said = line.errors[0] ?? line.result;
  return {
    fault: line.is_error ? failure(said, line.errors, line.subtype) : undefined,
    totalCostUsd: line.total_cost_usd,
    inputTokens:
      usage.input_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens,
    outputTokens: usage.output_tokens,
    sessionMissing: line.is_error && said.startsWith("No conversation found"),
    unsolicited: line.origin !== undefined,
  };
}

/** The agent went away without a `result`. An exit code of 0 is no excuse: its output was cut. */
export function exitFault(exit: AgentExit): Fault {
  const how = exit.signal ? `by ${exit.signal}` : `with code ${exit.code ?? "unknown"}`;
  const stderr = exit.stderr.trim();
  const last = stderr.split("\n").at(-1) ?? "";
  return new Fault(
    "EXECUTION_FAILED",
    `Cannot finish the run: the agent ended ${how} without a result${last ? `; it said ${JSON.stringify(last.slice(0, 300))}` : ""}`,
    { reason: "no_result", exit_code: exit.code, signal: exit.signal, stderr },
  );
}

function failure(said: string, errors: readonly string[], subtype: string): Fault {
  const details = { subtype, errors, result: said };
  if (/not logged in|please run \/login/i.test(said))
    return new Fault(
      "EXECUTION_FAILED",
      "Cannot run the prompt: the claude CLI is not logged in; run `claude` in a terminal on this machine and log in",
      { ...details, reason: "not_logged_in" },
    );
  const text = said.slice(0, 500) || `it ended with ${JSON.stringify(subtype)}`;
  return new Fault("EXECUTION_FAILED", `Cannot finish the run: the agent says: ${text}`, {
    ...details,
    reason: "agent_error",
  });
}
