import { isFields, type Fields } from "./record.ts";
import type { Answer } from "./requests.ts";
import type { Call, Turn } from "./turn.ts";

/** A question for the user, as the model would ask it. */
export const QUESTION = {
  questions: [
    {
      question: "Which colour?",
      header: "Colour",
      multiSelect: false,
      options: [
        { label: "Red", description: "warm" },
        { label: "Blue", description: "cold" },
      ],
    },
  ],
};

/** A call by what a directive says, `NAME` or `NAME:JSON`. */
export function newCall(turn: Turn, argument: string, given?: Fields): Call {
  const colon = argument.indexOf(":");
  const name = colon < 0 ? argument : argument.slice(0, colon);
  const parsed: unknown = colon < 0 ? (given ?? {}) : JSON.parse(argument.slice(colon + 1));
  const input = isFields(parsed) ? parsed : {};
  return { id: turn.agent.printer.nextId("toolu_fake"), name, input };
}

/** Calls a tool, after asking if the permissions say so. */
export async function useTool(turn: Turn, call: Call): Promise<void> {
  await turn.call(call);
  const verdict = turn.agent.permissions.decide(call.name, call.input);
  if (verdict.kind === "deny") return refuse(turn, call, verdict);
  if (verdict.kind === "ask") return conclude(turn, call, await turn.ask(call));
  return complete(turn, call, call.input);
}

/** Tells the model what came of asking. */
export async function conclude(turn: Turn, call: Call, answer: Answer): Promise<void> {
  if (answer.kind === "allow") return complete(turn, call, answer.input);
  return turn.outcome(call, answer.message);
}

/** The call ran: with the input that it was allowed with, which may differ from what was asked. */
async function complete(turn: Turn, call: Call, input: Fields): Promise<void> {
  if (call.name === "AskUserQuestion") {
    const { answers } = input;
    const pairs = Object.entries(isFields(answers) ? answers : {});
    const text = pairs.map(([question, answer]) => `"${question}"="${String(answer)}"`).join(", ");
    const content = `Your questions have been answered: ${text}. You can now continue with these answers in mind.`;
    return turn.outcome(call, content, input);
  }
  if (call.name === "ExitPlanMode") {
    turn.agent.permissions.setMode("default");
    await turn.agent.reportMode();
    const content = `User has approved your plan. You can now start coding.\n\n## Approved Plan:\n${String(input["plan"])}`;
    return turn.outcome(call, content, { ...input, isAgent: false });
  }
  return turn.outcome(call, `${call.name} ran with ${JSON.stringify(input)}`, { input });
}

/** Tells the model that a call was denied without asking. */
export async function refuse(
  turn: Turn,
  call: Call,
  why: { readonly message: string; readonly announced: boolean },
): Promise<void> {
  turn.deny(call);
  if (why.announced) {
    await turn.agent.printer.system("permission_denied", {
      tool_name: call.name,
      tool_use_id: call.id,
      decision_reason_type: "mode",
      message: why.message,
    });
  }
  await turn.outcome(call, why.message);
}
