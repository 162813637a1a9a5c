import { useEffect, useRef, useState } from "preact/hooks";
import type { PermissionRequest } from "../contract/messages.ts";
import type { Conversation } from "./conversation.ts";
import { type Answer, type CardProps, Decision } from "./decision.tsx";
import { Fallback } from "./fallback.tsx";
import { type Json, list, object, pretty, text } from "./json.ts";
import { place } from "./place.ts";
import { Question } from "./question.tsx";
import type { Store } from "./store.ts";
import { toolName, ToolInput } from "./tool-view.tsx";
import { Visible } from "./visible-text.tsx";

/** Nobody reads more at once. */
const shownCards = 20;

/** Everything the agent waits for, oldest first, above all else. */
export function Approvals({ store, conversation }: { store: Store; conversation: Conversation }) {
  const requests = conversation.permissions.value;
  const calm = useCalm(requests.map(({ permission_id }) => permission_id).join());
  useFocus(requests.length);
  if (requests.length === 0) return null;
  return (
    <section class="approvals" aria-label="The agent needs you">
      <p class="hidden" role="status">
        {requests.length === 1 ? "The agent waits for you" : `${requests.length} requests wait`}
      </p>
      {requests.slice(0, shownCards).map((request) => (
        <Card key={request.permission_id} {...{ store, conversation, request, calm }} />
      ))}
      {requests.length > shownCards && (
        <p class="hint">{requests.length - shownCards} more wait behind these.</p>
      )}
    </section>
  );
}

/** Whether the cards are where they were: what was under the finger a moment ago was another. */
function useCalm(cards: string): boolean {
  const [calm, setCalm] = useState("");
  useEffect(() => {
    const timer = setTimeout(() => setCalm(cards), 800);
    return () => clearTimeout(timer);
  }, [cards]);
  return calm === cards;
}

/** Whoever answered with the keyboard goes on with the next, or with the conversation. */
function useFocus(cards: number): void {
  const before = useRef(0);
  useEffect(() => {
    const answered = cards < before.current;
    before.current = cards;
    if (!answered || document.activeElement !== document.body) return;
    document.querySelector<HTMLElement>(".card, .timeline")?.focus({ preventScroll: true });
  }, [cards]);
}

function Card({
  store,
  conversation,
  request,
  calm,
}: {
  store: Store;
  conversation: Conversation;
  request: PermissionRequest;
  calm: boolean;
}) {
  const [sent, setSent] = useState(false);
  const card = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (place.value.permission === request.permission_id) card.current?.focus();
  }, []);
  const busy = sent || !calm;
  const answer = (data: Answer) => {
    setSent(true);
    store.attempt(async () => {
      try {
        const { permission_id } = request;
        await store.link.request("permission_response", {
          project: conversation.id,
          data: { permission_id, ...data },
        });
      } finally {
        setSent(false);
      }
    });
  };
  const scope = store.may("full") ? "full" : store.may("approve") ? "approve" : "read";
  const Kind = { tool: Tool, question: Question, plan: Plan }[request.kind];
  return (
    <div
      class={`card ${request.kind}`}
      ref={card}
      tabIndex={-1}
      role="group"
      aria-label={titles[request.kind]}
    >
      <Fallback
        raw={request}
        below={
          <Decision
            {...{ scope, answer, busy }}
            name="Allow"
            allow={() => answer({ decision: "allow" })}
            blocked
          />
        }
      >
        <Kind {...{ request, scope, answer, busy }} />
      </Fallback>
      {scope === "read" && <p class="hint">This device may only watch. Answer on another one.</p>}
    </div>
  );
}

const titles = {
  tool: "A tool needs approval",
  question: "The agent asks",
  plan: "The agent has a plan",
};

function Tool({ request, scope, answer, busy }: CardProps) {
  const [edited, setEdited] = useState<string | undefined>(undefined);
  const updated = edited === undefined ? undefined : parsed(edited);
  const rules =
    request.suggestions?.filter(({ type }) => type === "addRules" || type === "addDirectories") ??
    [];
  const allow = (more: Answer | object = {}) =>
    answer({ decision: "allow", ...(updated && { updated_input: updated }), ...more });
  return (
    <>
      <header>
        <b>
          <Visible text={toolName(request.tool_name)} />
        </b>{" "}
        needs your approval
        {request.agent_id && <small> (asked by a sub-agent)</small>}
      </header>
      <Told words={toldBy(request)} />
      <div class="input">
        {edited === undefined ? (
          <Fallback raw={request.input}>
            <ToolInput name={request.tool_name} input={request.input} />
          </Fallback>
        ) : (
          <textarea
            class="mono"
            aria-label="Input as JSON"
            value={edited}
            rows={8}
            onInput={(event) => setEdited(event.currentTarget.value)}
          />
        )}
      </div>
      {edited !== undefined && !updated && <p class="hint">That is not a JSON object yet.</p>}
      <Decision
        {...{ scope, answer, busy }}
        name="Allow"
        allow={() => allow()}
        blocked={edited !== undefined && !updated}
      >
        {scope === "full" && (
          <button
            type="button"
            class="quiet"
            onClick={() => setEdited(edited === undefined ? pretty(request.input) : undefined)}
          >
            {edited === undefined ? "Edit" : "As it was"}
          </button>
        )}
        {scope === "full" && rules.length > 0 && edited === undefined && (
          <button type="button" disabled={busy} onClick={() => allow({ remember: true })}>
            Always this session:{" "}
            <code>
              <Visible text={rules.map(ruleText).join(", ")} />
            </code>
          </button>
        )}
      </Decision>
    </>
  );
}

function Plan({ request, scope, answer, busy }: CardProps) {
  return (
    <>
      <header>The agent has a plan</header>
      <div class="input">
        <ToolInput name="ExitPlanMode" input={request.input} />
      </div>
      {scope === "approve" && (
        <p class="hint">
          A plan decides what runs: approving it needs a device that may do everything.
        </p>
      )}
      <Decision
        {...{ scope, answer, busy }}
        name="Approve the plan"
        allow={() => answer({ decision: "allow" })}
        blocked={scope !== "full"}
      />
    </>
  );
}

function toldBy({ input, description = "" }: PermissionRequest): string {
  const said = input["description"];
  if (typeof said === "string" && said !== "") return said;
  // Often it is a part of the input, which is shown as that.
  return Object.values(input).includes(description) ? "" : description;
}

/** What the agent says about it, marked as such: it may say anything. */
function Told({ words }: { words: string }) {
  if (words === "") return null;
  return (
    <p class="told">
      <small>In the agent's words:</small> <Visible text={words} />
    </p>
  );
}

function ruleText({ rules, directories }: Json): string {
  const named = list(rules)
    .map(object)
    .map(({ toolName: tool, ruleContent: content }) =>
      content === undefined ? text(tool) : `${text(tool)}(${text(content)})`,
    );
  return [...named, ...list(directories).map(text)].join(", ");
}

function parsed(json: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(json);
    const fits = typeof value === "object" && value !== null && !Array.isArray(value);
    return fits ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
