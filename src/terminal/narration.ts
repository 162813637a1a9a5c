import * as v from "valibot";
import type { PermissionRequest, ServerData, ServerType } from "../contract/messages.ts";
import { inline, visible } from "./visible.ts";
import type { Frame } from "./wire.ts";

/** What a line is, which decides how it looks and where it goes. */
export type Tone = "prompt" | "tool" | "detail" | "notice" | "error" | "ask";

/** Something to read. All of it can be shown on a terminal. */
export interface Line {
  readonly tone: Tone;
  readonly text: string;
}

const maxSummary = 160;
/** What says most about a tool's input, where it has it. */
const telling = [
  "command",
  "file_path",
  "path",
  "pattern",
  "url",
  "query",
  "description",
  "prompt",
];

const result = v.looseObject({
  is_error: v.optional(v.boolean()),
  duration_ms: v.optional(v.number()),
  total_cost_usd: v.optional(v.number()),
});

type Narrators = { readonly [T in ServerType]?: (data: ServerData<T>) => Line };

const narrators: Narrators = {
  user_message: ({ prompt, device }) => ({
    tone: "prompt",
    text: `> ${visible(prompt)}${by(device)}`,
  }),
  execution_queued: ({ position }) =>
    notice(`Waits its turn at position ${inline(String(position))}`),
  execution_cancelled: ({ reason = "taken back" }) => notice(`Will not run: ${inline(reason)}`),
  permission_request: ({ tool_name, input }) => ({
    tone: "ask",
    text: `Asks for ${toolText(tool_name, input)}`,
  }),
  permission_resolved: ({ decision, device, reason }) => {
    const word = { allow: "Allowed", deny: "Refused", withdrawn: "No longer asked" }[decision];
    return { tone: "ask", text: `${word}${by(device)}${reason ? `: ${inline(reason)}` : ""}` };
  },
  session_reset: () => notice("The next prompt begins a new conversation"),
  notice: ({ message }) => notice(visible(message)),
  error: ({ message }) => ({ tone: "error", text: visible(message) }),
  project_deleted: () => ({ tone: "error", text: "The project was deleted" }),
  server_shutdown: ({ reason }) => notice(`The server is going down: ${inline(reason)}`),
};

/** An event in words, for all but what the agent says and does; undefined for what says nothing new. */
export function narrate({ type, data }: Frame): Line | undefined {
  // The one cast: each row takes the data of its own type. A type may be one that is not known here.
  const row = Object.hasOwn(narrators, type) ? narrators[type] : undefined;
  return row?.(data as never);
}

const notice = (text: string): Line => ({ tone: "notice", text });

/** How a turn ended, as the agent says it. */
export function ending(message: object): Line | undefined {
  const parsed = v.safeParse(result, message);
  if (!parsed.success) return undefined;
  const { is_error, duration_ms = 0, total_cost_usd: cost } = parsed.output;
  const time = `${(duration_ms / 1000).toFixed(1)} s`;
  const text = `${is_error ? "Ended badly" : "Done"} in ${time}${cost ? `, $${cost.toFixed(4)}` : ""}`;
  return { tone: is_error ? "error" : "detail", text };
}

/** A use of a tool in one line. */
export function toolText(name: string, input: Readonly<Record<string, unknown>>): string {
  const field = telling.find((key) => typeof input[key] === "string");
  const said = field === undefined ? JSON.stringify(input) : String(input[field]);
  const text = inline(said);
  const short = text.length > maxSummary ? `${text.slice(0, maxSummary)}…` : text;
  return `${inline(name)}: ${short}`;
}

/** What the agent asks, with everything that it would do. */
export function requestText({
  tool_name,
  display_name,
  description,
  input,
}: PermissionRequest): string {
  const name =
    display_name && display_name !== tool_name ? `${display_name} (${tool_name})` : tool_name;
  return [
    `? ${inline(name)} wants to run${description ? `: ${inline(description)}` : ""}`,
    ...fieldTexts(input),
  ].join("\n");
}

/** Each field of an input, the whole of it. */
export function fieldTexts(input: Readonly<Record<string, unknown>>): string[] {
  return Object.entries(input).map(([key, value]) => {
    const text = typeof value === "string" ? visible(value) : inline(JSON.stringify(value));
    return `  ${inline(key)}: ${text.replaceAll("\n", "\n    ")}`;
  });
}

function by(device: { readonly name: string } | null | undefined): string {
  return device ? ` (${inline(device.name)})` : "";
}
