import { useEffect, useRef, useState } from "preact/hooks";
import type { PermissionRequest } from "../contract/messages.ts";
import type { Conversation } from "./conversation.ts";
import { type Answer, type CardProps, Decision } from "./decision.tsx";
import { Fallback } from "./fallback.tsx";
import { Markdown } from "./markdown.tsx";
import { place } from "./place.ts";
import { Question } from "./question.tsx";
import type { Store } from "./store.ts";
import { toolName, ToolInput } from "./tool-view.tsx";
import { Visible } from "./visible-text.tsx";

/** Everything the agent waits for, oldest first, above all else. */
export function Approvals({ store, conversation }: { store: Store; conversation: Conversation }) {
  const requests = conversation.permissions.value;
  const calm = useCalm(requests.map(({ permission_id }) => permission_id).join());
  if (requests.length === 0) return null;
  return (
    <section class="approvals" aria-label="The agent needs you">
      {requests.map((request) => (
        <Card key={request.permission_id} {...{ store, conversation, request, calm }} />
      ))}
    </section>
  );
}

/** Whether the cards are where they were: what was under the finger a moment ago was another. */
function useCalm(cards: string): boolean {
  const [calm, setCalm] = useState("");
  useEffect(() => {
    const timer = setTimeout(() => setCalm(cards), 400);
    return () => clearTimeout(timer);
  }, [cards]);
  return calm === cards;
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
            blocked={request.kind !== "tool" && scope !== "full"}
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
      <Told text={toldBy(request)} />
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
            onClick={() =>
              setEdited(edited === undefined ? JSON.stringify(request.input, null, 2) : undefined)
            }
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
  const { plan, ...rest } = request.input;
  return (
    <>
      <header>The agent has a plan</header>
      <div class="input plan">
        {typeof plan === "string" && <Markdown text={plan} />}
        <ToolInput name="" input={typeof plan === "string" ? rest : request.input} />
      </div>
      {/* Approving a plan decides what runs. */}
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
  return typeof input["description"] === "string" ? input["description"] : description;
}

/** What the agent says about it, marked as such: it may say anything. */
function Told({ text }: { text: string }) {
  if (text === "") return null;
  return (
    <p class="told">
      <small>In the agent's words:</small> <Visible text={text} />
    </p>
  );
}

function ruleText(suggestion: Readonly<Record<string, unknown>>): string {
  const { rules, directories } = suggestion;
  if (Array.isArray(rules))
    return rules
      .map(({ toolName: tool, ruleContent }) =>
        ruleContent ? `${tool}(${ruleContent})` : String(tool),
      )
      .join(", ");
  return Array.isArray(directories) ? directories.join(", ") : "this";
}

function parsed(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    const object = typeof value === "object" && value !== null && !Array.isArray(value);
    return object ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
