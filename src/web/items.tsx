import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import type { Resolution } from "../contract/messages.ts";
import { Code, Copy } from "./code.tsx";
import { Fallback } from "./fallback.tsx";
import { pretty } from "./json.ts";
import type { LiveBlock } from "./live-turn.ts";
import { Markdown, maxText } from "./markdown.tsx";
import { memo } from "./memo.ts";
import { toolName, ToolInput, toolSummary } from "./tool-view.tsx";
import type { Item, ToolItem, ToolResult } from "./transcript.ts";
import { Visible } from "./visible-text.tsx";
import { cost, duration, extent } from "./wording.ts";

/** One line or card of a conversation. */
export const ItemView = memo(({ item }: { item: Item }) => <>{view(item)}</>);

function view(item: Item): ComponentChildren {
  switch (item.kind) {
    case "prompt":
      return <Prompt item={item} />;
    case "text":
      return (
        <article class="said">
          <Fallback raw={item.text}>
            <Markdown text={item.text} />
          </Fallback>
          <div class="tools">
            <Copy text={item.text} />
          </div>
        </article>
      );
    case "thinking":
      return (
        <Fold class="thinking" summary="Thinking">
          <div class="thought" dir="auto">
            <Visible text={item.text} prose />
          </div>
        </Fold>
      );
    case "tool":
      return <Tool tool={item} />;
    case "notice":
    case "error":
      return (
        <div class={item.kind} role={item.kind === "error" ? "alert" : undefined}>
          <strong>{item.kind === "error" ? "Failed" : "Note"}</strong>{" "}
          <Visible text={item.text} prose />
        </div>
      );
    case "mark":
      return (
        <div class="mark">
          <Visible text={item.text} prose />
        </div>
      );
    case "result":
      return <Ending item={item} />;
    default:
      return item satisfies never;
  }
}

const endings = { done: "Done", stopped: "Stopped", failed: "Ended badly" } as const;

function Ending({ item }: { item: Extract<Item, { kind: "result" }> }) {
  return (
    <div class={item.end === "failed" ? "result failed" : "result"}>
      {endings[item.end]} · {duration(item.durationMs)}
      {item.costUsd !== undefined && ` · ${cost(item.costUsd)}`}
      {item.text && (
        <div class="why">
          <Visible text={item.text} prose />
        </div>
      )}
    </div>
  );
}

function Prompt({ item }: { item: Extract<Item, { kind: "prompt" }> }) {
  const time = new Date(item.at).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
  return (
    <article class="prompt">
      <div class="body" dir="auto">
        <Visible text={item.text} prose />
      </div>
      <div class="by">
        {item.images > 0 && `${item.images} ${item.images === 1 ? "image" : "images"} · `}
        {item.device ? (
          <>
            <Visible text={item.device.name} /> ·{" "}
          </>
        ) : null}
        {time}
      </div>
    </article>
  );
}

function Tool({ tool }: { tool: ToolItem }) {
  const edits = tool.name === "Edit" && pretty(tool.input).length < 2_000;
  const state = stateOf(tool);
  return (
    <Fold
      class={`tool ${state.split(" ")[0]}`}
      open={edits || tool.name === "TodoWrite"}
      summary={
        <>
          <span class="state" role="img" aria-label={state} />
          <b>
            <Visible text={toolName(tool.name)} />
          </b>{" "}
          <span class="gist">
            <Visible text={toolSummary(tool.name, tool.input)} />
          </span>
          {tool.resolution && <Resolved resolution={tool.resolution} />}
        </>
      }
    >
      {typeof tool.input["description"] === "string" && tool.name === "Bash" && (
        <div class="told">
          <Visible text={tool.input["description"]} />
        </div>
      )}
      <ToolInput name={tool.name} input={tool.input} />
      {tool.resolution?.reason && (
        <div class="extent">
          Told: <Visible text={tool.resolution.reason} prose />
        </div>
      )}
      {tool.children.length > 0 && (
        <div class="children">
          {tool.children.map((child) => (
            <ItemView key={child.key} item={child} />
          ))}
        </div>
      )}
      {tool.result && <Result result={tool.result} folded={changes.has(tool.name)} />}
    </Fold>
  );
}

function stateOf({ result, over }: ToolItem): string {
  if (result) return result.failed ? "failed" : "done";
  return over ? "without a result" : "running";
}

/** Who decided, and how: it may have been on another device. */
function Resolved({ resolution }: { resolution: Resolution }) {
  const done = { allow: "allowed", deny: "denied", withdrawn: "withdrawn" }[resolution.decision];
  return (
    <span class={`resolved ${resolution.decision}`}>
      {done}
      {resolution.device && (
        <>
          {" by "}
          <Visible text={resolution.device.name} prose />
        </>
      )}
      {resolution.reason && (
        <>
          : <Visible text={resolution.reason} prose />
        </>
      )}
    </span>
  );
}

/** What these give back is only that they did it. */
const changes: ReadonlySet<string> = new Set(["Edit", "MultiEdit", "NotebookEdit", "Write"]);

function Result({ result, folded }: { result: ToolResult; folded: boolean }) {
  const { text, images, failed } = result;
  const about = `${failed ? "Failed" : "Output"}: ${extent(text)}`;
  return (
    <div class={failed ? "output failed" : "output"}>
      {text !== "" &&
        (folded && !failed ? (
          <Fold class="extent" summary={about}>
            <Code text={text} />
          </Fold>
        ) : (
          <>
            <div class="extent">{about}</div>
            <Code text={text} />
          </>
        ))}
      {images.map(({ mediaType, data }) =>
        // An SVG is a document of the agent's own.
        /^image\/(png|jpeg|gif|webp)$/.test(mediaType) ? (
          <img src={`data:${mediaType};base64,${data}`} alt="What the tool gave back" />
        ) : null,
      )}
    </div>
  );
}

/** A card that is closed until somebody opens it; what is in a closed one is not drawn. */
function Fold(fold: {
  class: string;
  summary: ComponentChildren;
  open?: boolean;
  children: ComponentChildren;
}) {
  const [open, setOpen] = useState(fold.open ?? false);
  return (
    <details class={fold.class} open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{fold.summary}</summary>
      {open && <div class="inside">{fold.children}</div>}
    </details>
  );
}

/** What the agent is writing. */
export function Live({ block }: { block: LiveBlock }) {
  // Of much, the end is what is being written.
  const long = block.text.length > maxText;
  const end = long ? block.text.slice(-2_000) : block.text;
  const text = block.torn || long ? `… ${end}` : end;
  if (block.kind === "text")
    return (
      <article class="said live">
        <Fallback raw={text}>
          <Markdown text={text} />
        </Fallback>
      </article>
    );
  if (block.kind === "thinking")
    return (
      <div class="thinking live">
        <Visible text={`Thinking: ${text.slice(-300)}`} />
      </div>
    );
  return (
    <div class="tool live">
      <span class="state" />{" "}
      <b>
        <Visible text={toolName(block.name)} />
      </b>{" "}
      <span class="gist">
        <Visible text={text.slice(-120)} />
      </span>
    </div>
  );
}
