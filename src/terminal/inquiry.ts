import * as v from "valibot";
import type { PermissionRequest } from "../contract/messages.ts";
import type { Key } from "./keyboard.ts";
import { LineEditor } from "./line-editor.ts";
import { fieldTexts, requestText } from "./narration.ts";
import { inline, visible } from "./visible.ts";

/** What `permission_response` takes. */
export interface Answer {
  readonly permission_id: string;
  readonly decision: "allow" | "deny";
  readonly remember?: boolean;
  readonly answers?: Readonly<Record<string, string | string[]>>;
}

const questions = v.array(
  v.looseObject({
    question: v.string(),
    multiSelect: v.optional(v.boolean(), false),
    options: v.optional(
      v.array(v.looseObject({ label: v.string(), description: v.optional(v.string()) })),
      [],
    ),
  }),
);
/** The suggestions that a server applies: no others are offered. */
const remembered = v.looseObject({
  type: v.picklist(["addRules", "addDirectories"]),
  rules: v.optional(
    v.array(v.looseObject({ toolName: v.string(), ruleContent: v.optional(v.string()) })),
    [],
  ),
  directories: v.optional(v.array(v.string()), []),
});
type Question = v.InferOutput<typeof questions>[number];

/** Something that the agent asks, and what each key makes of it. */
export class Inquiry {
  readonly request: PermissionRequest;
  readonly #questions: readonly Question[];
  readonly #answers: Record<string, string | string[]> = {};
  #at = 0;
  #chosen = new Set<number>();
  #words: LineEditor | undefined;

  constructor(request: PermissionRequest) {
    this.request = request;
    const parsed = v.safeParse(questions, request.input["questions"]);
    this.#questions = request.kind === "question" && parsed.success ? parsed.output : [];
  }

  /** All of it, to be read before a key is pressed. */
  get text(): string {
    const { kind, input } = this.request;
    const question = this.#question;
    if (question) return questionText(question);
    const { plan, ...rest } = input;
    if (kind === "plan" && typeof plan === "string")
      return [`? The agent has a plan:`, visible(plan), ...fieldTexts(rest)].join("\n");
    return requestText(this.request);
  }

  /** What the keys do now. */
  get hint(): string {
    const question = this.#question;
    if (this.#words) return "Enter answers, Esc goes back";
    if (!question)
      return `y allows, n refuses${this.#rules ? `, a allows for this session: ${this.#rules}` : ""}`;
    const numbers = question.options.length > 0 ? `1-${question.options.length}` : "";
    if (question.multiSelect) {
      const chosen = [...this.#chosen].map((at) => at + 1).toSorted((a, b) => a - b);
      return `${numbers} choose [${chosen.join(" ")}], Enter answers, o own words, n refuses`;
    }
    return `${numbers} answers, o own words, n refuses`;
  }

  /** The words that are typed as an answer, while they are. */
  get words(): LineEditor | undefined {
    return this.#words;
  }

  /** Takes a key. Gives the answer when that was the last that was missing. */
  press(key: Key): Answer | undefined {
    const { permission_id } = this.request;
    if (this.#words) return this.#type(this.#words, key);
    if (key.text === "n") return { permission_id, decision: "deny" };
    if (this.#question) return this.#choose(this.#question, key);
    if (key.text === "y") return { permission_id, decision: "allow" };
    if (key.text === "a" && this.#rules)
      return { permission_id, decision: "allow", remember: true };
    return undefined;
  }

  get #question(): Question | undefined {
    return this.#questions[this.#at];
  }

  /** What would be allowed from then on; empty if there is nothing. */
  get #rules(): string {
    if (this.request.kind !== "tool") return "";
    const texts = (this.request.suggestions ?? []).flatMap((suggestion) => {
      const { output, success } = v.safeParse(remembered, suggestion);
      if (!success) return [];
      const rules = output.rules.map(({ toolName: tool, ruleContent: content }) =>
        content === undefined ? tool : `${tool}(${content})`,
      );
      return [...rules, ...output.directories];
    });
    return texts.map(inline).join(", ");
  }

  #type(words: LineEditor, key: Key): Answer | undefined {
    if (key.name === "escape") this.#words = undefined;
    else if (key.name !== "return" || key.pasted) words.press(key);
    else if (words.text.trim() !== "") return this.#answer(words.text);
    return undefined;
  }

  #choose({ options, multiSelect }: Question, key: Key): Answer | undefined {
    if (key.text === "o") this.#words = new LineEditor();
    const at = /^[1-9]$/.test(key.text) ? Number(key.text) - 1 : -1;
    const option = options[at];
    if (option && !multiSelect) return this.#answer(option.label);
    if (option && !this.#chosen.delete(at)) this.#chosen.add(at);
    if (multiSelect && key.name === "return" && this.#chosen.size > 0)
      return this.#answer(
        options.filter((_, one) => this.#chosen.has(one)).map((one) => one.label),
      );
    return undefined;
  }

  #answer(given: string | string[]): Answer | undefined {
    const question = this.#question;
    if (question) this.#answers[question.question] = given;
    this.#at += 1;
    this.#chosen = new Set();
    this.#words = undefined;
    if (this.#question) return undefined;
    const { permission_id } = this.request;
    return { permission_id, decision: "allow", answers: this.#answers };
  }
}

function questionText({ question, options }: Question): string {
  return [
    `? ${visible(question)}`,
    ...options.map(
      ({ label, description }, at) =>
        `  ${at + 1}  ${inline(label)}${description ? ` - ${inline(description)}` : ""}`,
    ),
  ].join("\n");
}
