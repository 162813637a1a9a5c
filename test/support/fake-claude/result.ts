import type { Fields } from "./record.ts";

/** How a turn ends, where it is not the usual way. */
export interface Ending {
  readonly subtype: string;
  readonly isError: boolean;
  readonly text?: string;
  readonly errors?: readonly string[];
  readonly stopReason: string | null;
  readonly terminalReason?: string;
  readonly apiErrorStatus?: number | null;
}

/** What happened in a turn. Cost and model usage are those of the process so far. */
interface Facts {
  readonly durationMs: number;
  readonly turns: number;
  readonly usage: Fields;
  readonly denials: readonly Fields[];
  readonly cost: number;
  readonly modelUsage: Fields;
}

/** The line that ends a turn: errors have `errors` and no `result`, everything else the opposite. */
export function resultLine(ending: Ending, facts: Facts): Fields {
  const { apiErrorStatus, terminalReason } = ending;
  return {
    type: "result",
    subtype: ending.subtype,
    is_error: ending.isError,
    ...(apiErrorStatus === undefined ? {} : { api_error_status: apiErrorStatus }),
    duration_ms: facts.durationMs,
    duration_api_ms: facts.durationMs,
    num_turns: facts.turns,
    ...(ending.errors ? { errors: ending.errors } : { result: ending.text ?? "" }),
    stop_reason: ending.stopReason,
    total_cost_usd: facts.cost,
    usage: { ...facts.usage, iterations: [], speed: "standard" },
    modelUsage: facts.modelUsage,
    permission_denials: facts.denials,
    ...(terminalReason ? { terminal_reason: terminalReason } : {}),
    fast_mode_state: "off",
  };
}
