import bash from "highlight.js/lib/languages/bash";
import c from "highlight.js/lib/languages/c";
import cpp from "highlight.js/lib/languages/cpp";
import css from "highlight.js/lib/languages/css";
import diff from "highlight.js/lib/languages/diff";
import go from "highlight.js/lib/languages/go";
import ini from "highlight.js/lib/languages/ini";
import java from "highlight.js/lib/languages/java";
import javascript from "highlight.js/lib/languages/javascript";
import json from "highlight.js/lib/languages/json";
import kotlin from "highlight.js/lib/languages/kotlin";
import markdown from "highlight.js/lib/languages/markdown";
import python from "highlight.js/lib/languages/python";
import ruby from "highlight.js/lib/languages/ruby";
import rust from "highlight.js/lib/languages/rust";
import sql from "highlight.js/lib/languages/sql";
import swift from "highlight.js/lib/languages/swift";
import typescript from "highlight.js/lib/languages/typescript";
import xml from "highlight.js/lib/languages/xml";
import yaml from "highlight.js/lib/languages/yaml";
import { createLowlight } from "lowlight";
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { memo } from "./memo.ts";
import { Visible } from "./visible-text.tsx";
import { extent, isLong } from "./wording.ts";

const lowlight = createLowlight({
  bash,
  c,
  cpp,
  css,
  diff,
  go,
  ini,
  java,
  javascript,
  json,
  kotlin,
  markdown,
  python,
  ruby,
  rust,
  sql,
  swift,
  typescript,
  xml,
  yaml,
});
/** More is shown without colours: they would hold the page up. */
const maxColoured = 30_000;
/** What is shown at once of a long text, in characters; the rest on request. */
const step = 20_000;

/** A block of code: coloured if the language is known, with nothing in it hidden. */
export const Code = memo(({ text, language }: { text: string; language?: string | undefined }) => {
  const [shown, setShown] = useState(step);
  const part = text.slice(0, shown);
  return (
    <div class="code">
      <div class="code-head">
        <span>
          {language || "text"}
          {/* What does not fit is not to be overlooked. */}
          {isLong(text) && `, ${extent(text)}`}
        </span>
        <Copy text={text} />
      </div>
      <pre tabIndex={0}>
        <code>{colours(part, language)}</code>
      </pre>
      {text.length > shown && (
        <button type="button" class="more" onClick={() => setShown(shown * 4)}>
          {(text.length - shown).toLocaleString()} more characters: show more
        </button>
      )}
    </div>
  );
});

export function Copy({ text }: { text: string }) {
  const [done, setDone] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone("Copied");
    } catch {
      setDone("Not allowed");
    }
    setTimeout(() => setDone(""), 1_500);
  };
  return (
    <button type="button" class="quiet" onClick={() => void copy()}>
      {done || "Copy"}
    </button>
  );
}

interface Node {
  readonly type: string;
  readonly value?: string;
  readonly properties?: { readonly className?: readonly string[] };
  readonly children?: readonly Node[];
}

function colours(text: string, language: string | undefined): ComponentChildren {
  if (!language || text.length > maxColoured || !lowlight.registered(language))
    return <Visible text={text} whole />;
  return nodes(lowlight.highlight(language, text).children as unknown as readonly Node[]);
}

function nodes(all: readonly Node[] = []): ComponentChildren {
  return all.map(({ type, value = "", properties, children }) =>
    type === "text" ? (
      <Visible text={value} whole />
    ) : (
      <span class={properties?.className?.join(" ")}>{nodes(children)}</span>
    ),
  );
}
