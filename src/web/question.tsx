import { useState } from "preact/hooks";
import { type CardProps, Decision } from "./decision.tsx";
import { object } from "./json.ts";
import { ToolInput } from "./tool-view.tsx";
import { Visible } from "./visible-text.tsx";

interface Asked {
  readonly question: string;
  readonly header?: string;
  readonly multiSelect?: boolean;
  readonly options: readonly { readonly label: string; readonly description?: string }[];
}

/** By the text of the question, which may be any text. */
type Answers = ReadonlyMap<string, readonly string[]>;

/** Questions with options: one or several of each, or an answer in one's own words. */
export function Question({ request, scope, answer, busy }: CardProps) {
  const [chosen, setChosen] = useState<Answers>(new Map());
  const [own, setOwn] = useState<ReadonlyMap<string, string>>(new Map());
  const asked = questionsOf(request.input["questions"]);
  if (!asked) return <Unknown {...{ request, scope, answer, busy }} />;
  const all = (question: string) => {
    const words = own.get(question)?.trim();
    return [...(chosen.get(question) ?? []), ...(words ? [words] : [])];
  };
  const complete = asked.every(({ question }) => all(question).length > 0);
  const send = () => {
    const answers = Object.fromEntries(
      asked.map(({ question, multiSelect }) => {
        const texts = all(question);
        return [question, multiSelect ? texts : (texts.at(-1) ?? "")];
      }),
    );
    answer({ decision: "allow", answers });
  };
  const toggle = ({ question, multiSelect }: Asked, label: string) => {
    const now = chosen.get(question) ?? [];
    const without = now.filter((other) => other !== label);
    const added = multiSelect ? [...now, label] : [label];
    setChosen(new Map(chosen).set(question, now.includes(label) ? without : added));
    if (!multiSelect) setOwn(new Map(own).set(question, ""));
  };
  return (
    <>
      <header>The agent asks</header>
      {asked.map((one) => (
        <fieldset key={one.question} disabled={scope === "read"}>
          <legend>
            {one.header && (
              <small>
                <Visible text={one.header} />
              </small>
            )}{" "}
            <Visible text={one.question} prose />
            {one.multiSelect && <small> (several)</small>}
          </legend>
          {one.options.map(({ label, description }) => (
            <label class="option" key={label}>
              <input
                type={one.multiSelect ? "checkbox" : "radio"}
                name={`${request.permission_id} ${one.question}`}
                checked={chosen.get(one.question)?.includes(label) ?? false}
                onChange={() => toggle(one, label)}
              />
              <span>
                <Visible text={label} prose />
                {description && (
                  <small>
                    <Visible text={description} prose />
                  </small>
                )}
              </span>
            </label>
          ))}
          {scope === "full" && (
            <input
              type="text"
              placeholder="Something else"
              aria-label={`Something else: ${one.question}`}
              value={own.get(one.question) ?? ""}
              onInput={(event) => {
                setOwn(new Map(own).set(one.question, event.currentTarget.value));
                if (!one.multiSelect) setChosen(new Map(chosen).set(one.question, []));
              }}
            />
          )}
        </fieldset>
      ))}
      <Decision {...{ scope, answer, busy }} name="Answer" allow={send} blocked={!complete} />
    </>
  );
}

/** Questions in a shape that is not known: everything is shown, and can be refused. */
function Unknown({ request, scope, answer, busy }: CardProps) {
  return (
    <>
      <header>The agent asks</header>
      <div class="input">
        <ToolInput name="" input={request.input} />
      </div>
      <Decision
        {...{ scope, answer, busy }}
        name="Allow"
        allow={() => answer({ decision: "allow" })}
        blocked={false}
      />
    </>
  );
}

function questionsOf(value: unknown): readonly Asked[] | undefined {
  const fits = Array.isArray(value) && value.every(isAsked);
  return fits ? (value as readonly Asked[]) : undefined;
}

function isAsked(value: unknown): boolean {
  const { question, header = "", options } = object(value);
  const texts = typeof question === "string" && typeof header === "string";
  return texts && Array.isArray(options) && options.every(isOption);
}

function isOption(value: unknown): boolean {
  const { label, description = "" } = object(value);
  return typeof label === "string" && typeof description === "string";
}
