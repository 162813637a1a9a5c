import * as v from "valibot";
import { toolRule } from "../contract/agent-options.ts";
import { Fault } from "../contract/errors.ts";
import type { ClientMessage, PermissionRequest, Scope } from "../contract/messages.ts";
import type { ToolAnswer, ToolRequest } from "./ports.ts";

export type PermissionAnswer = ClientMessage<"permission_response">["data"];

/** What the agent proposes to be allowed for the rest of a session, as rules and directories. */
export interface Remembered {
  readonly rules: readonly string[];
  readonly directories: readonly string[];
}

const kinds = new Map<string, PermissionRequest["kind"]>([
  ["AskUserQuestion", "question"],
  ["ExitPlanMode", "plan"],
]);

const optional = v.fallback(v.optional(v.string()), undefined);
/** Fields that some versions of the CLI lack; a wrong one counts as missing. */
const extras = v.object({
  display_name: optional,
  description: optional,
  tool_use_id: optional,
  agent_id: optional,
  permission_suggestions: v.fallback(
    v.optional(v.array(v.record(v.string(), v.unknown()))),
    undefined,
  ),
});

/** The agent's request as clients see it. */
export function permissionRequest(
  asked: ToolRequest,
  about: { execution_id: string; requested_at: string },
): PermissionRequest {
  const { permission_suggestions: suggestions, ...rest } = v.parse(extras, asked);
  const given = Object.entries({ ...rest, suggestions }).filter(([, value]) => value !== undefined);
  return {
    permission_id: crypto.randomUUID(),
    ...about,
    kind: kinds.get(asked.tool_name) ?? "tool",
    tool_name: asked.tool_name,
    input: { ...asked.input },
    ...Object.fromEntries(given),
  };
}

/**
 * Throws FORBIDDEN for what only the scope full may answer, because it decides what runs and not
 * only whether: a plan, or words of one's own. The fields that need it are in the message's row.
 */
export function refuseBeyond(
  scope: Scope,
  request: PermissionRequest,
  { decision, answers }: PermissionAnswer,
): void {
  if (scope === "full" || decision === "deny") return;
  if (request.kind === "plan")
    throw new Fault("FORBIDDEN", `Cannot approve a plan: this device has the scope ${scope}`);
  const offers = offersOf(request);
  const may = `this device has the scope ${scope}, and may only choose`;
  for (const [question, given] of Object.entries(answers ?? {})) {
    const { labels = [], several = false } = offers.get(question) ?? {};
    const chosen = [given].flat();
    const own = chosen.find((label) => !labels.includes(label));
    if (own !== undefined)
      throw new Fault("FORBIDDEN", `Cannot answer with ${quote(own)}: ${may} what is offered`);
    // A list is told to the agent as one text, which must not become one of the client's own.
    if (chosen.length === 0 || chosen.length > (several ? new Set(chosen).size : 1))
      throw new Fault(
        "FORBIDDEN",
        `Cannot answer ${quote(question)} with ${chosen.length} choices: ${may} ${several ? "some of what is offered, each once" : "one of what is offered"}`,
      );
  }
}

/** What the agent is told. Throws INVALID_MESSAGE for an answer that does not fit the request. */
export function toolAnswer(request: PermissionRequest, answer: PermissionAnswer): ToolAnswer {
  if (answer.decision === "deny") return deny(answer);
  for (const field of ["interrupt", "message"] as const)
    if (answer[field]) throw misfit(field, "it goes with a refusal only");
  const updatedPermissions = answer.remember ? forThisSession(request) : [];
  return {
    behavior: "allow",
    updatedInput: updatedInput(request, answer),
    ...(updatedPermissions.length > 0 ? { updatedPermissions } : {}),
  };
}

/** What of the agent's suggestions can be given again to the process that replaces this one. */
export function remembered(request: PermissionRequest): Remembered {
  const kept = forThisSession(request);
  return {
    rules: kept.flatMap(({ rules }) => (Array.isArray(rules) ? rules.flatMap(ruleText) : [])),
    directories: kept.flatMap(({ directories }) =>
      Array.isArray(directories)
        ? directories.filter((path): path is string => typeof path === "string")
        : [],
    ),
  };
}

function deny({ message, interrupt, updated_input, answers, remember }: PermissionAnswer) {
  for (const [field, value] of Object.entries({ updated_input, answers, remember }))
    if (value) throw misfit(field, "it goes with allowing only");
  return {
    behavior: "deny" as const,
    message: message ?? "The user refused this",
    ...(interrupt ? { interrupt } : {}),
  };
}

function updatedInput(request: PermissionRequest, answer: PermissionAnswer) {
  const { updated_input, answers } = answer;
  if (request.kind !== "question") {
    if (answers) throw misfit("answers", "this request is no question");
    return updated_input ?? request.input;
  }
  if (updated_input && answers) throw misfit("answers", "updated_input has them already");
  if (updated_input) return updated_input;
  const asked = questions(request);
  const given = answers ?? {};
  for (const question of Object.keys(given))
    if (!asked.includes(question)) throw misfit("answers", `nobody asked ${quote(question)}`);
  for (const question of asked)
    if (!Object.hasOwn(given, question))
      throw misfit("answers", `${quote(question)} has no answer`);
  // Several labels are one text with commas, as the CLI's own dialog hands them on.
  const joined = Object.entries(given).map(([question, labels]) => [
    question,
    typeof labels === "string" ? labels : labels.join(", "),
  ]);
  return { ...request.input, answers: Object.fromEntries(joined) };
}

function questions({ input }: PermissionRequest): string[] {
  const list = input["questions"];
  if (!Array.isArray(list)) return [];
  return list.flatMap((item: unknown) => {
    const parsed = v.safeParse(v.looseObject({ question: v.string() }), item);
    return parsed.success ? [parsed.output.question] : [];
  });
}

/** What may be chosen, by question, and whether more than one of it. */
function offersOf({ input }: PermissionRequest) {
  const choice = v.looseObject({
    question: v.string(),
    options: v.array(v.looseObject({ label: v.string() })),
    multiSelect: v.fallback(v.optional(v.boolean(), false), false),
  });
  const parsed = v.safeParse(v.array(choice), input["questions"]);
  const asked = parsed.success ? parsed.output : [];
  return new Map(
    asked.map(({ question, options, multiSelect: several }) => [
      question,
      { labels: options.map(({ label }) => label), several },
    ]),
  );
}

/**
 * The agent's own suggestions, for this session only: never a change of mode, and nothing that
 * would be written into a settings file.
 */
function forThisSession({ suggestions = [] }: PermissionRequest): Record<string, unknown>[] {
  return suggestions
    .filter(
      ({ type, behavior }) =>
        (type === "addRules" && (behavior ?? "allow") === "allow") || type === "addDirectories",
    )
    .map((suggestion) => ({ ...suggestion, destination: "session" }));
}

function ruleText(rule: unknown): string[] {
  const shape = v.looseObject({ toolName: v.string(), ruleContent: v.optional(v.string()) });
  const parsed = v.safeParse(shape, rule);
  if (!parsed.success) return [];
  const { toolName, ruleContent } = parsed.output;
  const text = v.safeParse(toolRule, ruleContent ? `${toolName}(${ruleContent})` : toolName);
  return text.success ? [text.output] : [];
}

function misfit(field: string, why: string): Fault {
  const message = `Cannot answer the request with ${quote(field)}: ${why}`;
  return new Fault("INVALID_MESSAGE", message, { path: field });
}

const quote = (text: string): string => JSON.stringify(text);
