import { diffLines } from "diff";
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { Code } from "./code.tsx";
import { Markdown } from "./markdown.tsx";
import { Fallback } from "./fallback.tsx";
import { type Json as Input, list, object, pretty, text as textOf } from "./json.ts";
import { Visible } from "./visible-text.tsx";
import { extent, isLong } from "./wording.ts";

/** More lines are not compared: it would hold the page up. */
const maxCompared = 4_000;
const extensions: Readonly<Record<string, string>> = {
  ts: "typescript",
  tsx: "typescript",
  js: "javascript",
  jsx: "javascript",
  mjs: "javascript",
  json: "json",
  py: "python",
  rb: "ruby",
  rs: "rust",
  go: "go",
  java: "java",
  kt: "kotlin",
  swift: "swift",
  c: "c",
  h: "c",
  cpp: "cpp",
  hpp: "cpp",
  css: "css",
  html: "xml",
  xml: "xml",
  svg: "xml",
  yml: "yaml",
  yaml: "yaml",
  toml: "ini",
  ini: "ini",
  sql: "sql",
  sh: "bash",
  md: "markdown",
};

/** What a tool is asked, in a few words: a command, a path, a pattern. */
export function toolSummary(name: string, input: Input): string {
  for (const field of [
    "command",
    "file_path",
    "notebook_path",
    "pattern",
    "url",
    "query",
    "description",
    "subject",
    "path",
  ])
    if (typeof input[field] === "string" && input[field] !== "") return oneLine(input[field]);
  if (name === "AskUserQuestion" && Array.isArray(input["questions"]))
    return oneLine(
      list(input["questions"])
        .map((asked) => textOf(object(asked)["question"]))
        .join(" "),
    );
  if (name === "ExitPlanMode" && typeof input["plan"] === "string") return oneLine(input["plan"]);
  if (name === "TodoWrite" && Array.isArray(input["todos"]))
    return `${input["todos"].length} items`;
  return oneLine(Object.keys(input).length > 0 ? pretty(input) : "");
}

function oneLine(text: string): string {
  const line = text.replaceAll(/\s+/g, " ").trim();
  return line.length > 160 ? `${line.slice(0, 160)}…` : line;
}

/** A tool's name as people know it: `mcp__github__search` is `github: search`. */
export function toolName(name: string): string {
  const [, server, tool] = /^mcp__(.+?)__(.+)$/.exec(name) ?? [];
  return server ? `${server}: ${tool}` : name;
}

/** The whole input of a tool, the known ones as what they mean. Every field is there. */
export function ToolInput({ name, input }: { name: string; input: Input }) {
  const { shown, used } = known(name, input);
  const rest = Object.entries(input).filter(([field]) => !used.includes(field));
  return (
    <>
      {shown}
      {rest.map(([field, value]) => (
        <Field key={field} name={field}>
          <Code text={typeof value === "string" ? value : pretty(value)} />
        </Field>
      ))}
    </>
  );
}

function known(name: string, input: Input): { shown: ComponentChildren; used: readonly string[] } {
  const text = (field: string) => String(input[field]);
  const has = (...fields: string[]) => fields.every((field) => typeof input[field] === "string");
  if (name === "Bash" && has("command"))
    return {
      shown: <Code text={text("command")} language="bash" />,
      used: ["command", ...(has("description") ? told : [])],
    };
  if (name === "Write" && has("file_path", "content"))
    return {
      shown: (
        <File path={text("file_path")}>
          <Code text={text("content")} language={languageOf(text("file_path"))} />
        </File>
      ),
      used: ["file_path", "content"],
    };
  if (name === "Edit" && has("file_path", "old_string", "new_string"))
    return {
      shown: (
        <File path={text("file_path")}>
          <Diff before={text("old_string")} after={text("new_string")} />
        </File>
      ),
      used: ["file_path", "old_string", "new_string"],
    };
  if (name === "MultiEdit" && has("file_path") && list(input["edits"]).every(isPlainEdit))
    return {
      shown: (
        <File path={text("file_path")}>
          {list(input["edits"])
            .map(object)
            .map((edit) => (
              <Diff before={textOf(edit["old_string"])} after={textOf(edit["new_string"])} />
            ))}
        </File>
      ),
      used: ["file_path", "edits"],
    };
  if (name === "ExitPlanMode" && has("plan"))
    return {
      shown: <Plan text={text("plan")} />,
      used: ["plan"],
    };
  if (name === "TodoWrite" && Array.isArray(input["todos"]) && input["todos"].every(isTodo))
    return { shown: <Todos todos={input["todos"]} />, used: ["todos"] };
  return { shown: null, used: [] };
}

/** As it reads, and as it was written: what markdown leaves out is not hidden. */
function Plan({ text }: { text: string }) {
  const [source, setSource] = useState(false);
  return (
    <div class="plan">
      <Fallback raw={text}>
        {source ? <Code text={text} language="markdown" /> : <Markdown text={text} />}
      </Fallback>
      <button type="button" class="quiet" onClick={() => setSource(!source)}>
        {source ? "As it reads" : "As it was written"}
      </button>
    </div>
  );
}

/** Shown by whoever shows the input, as the agent's own words. */
const told = ["description"];

function isPlainEdit(edit: unknown): boolean {
  const { old_string, new_string, ...rest } = object(edit);
  const texts = typeof old_string === "string" && typeof new_string === "string";
  return texts && Object.keys(rest).length === 0;
}

interface Todo {
  readonly content: string;
  readonly status: string;
}

const statuses: ReadonlySet<string> = new Set(["pending", "in_progress", "completed"]);

function isTodo(todo: unknown): todo is Todo {
  const { content, status, ...rest } = object(todo);
  // What else it says is not left out: then the whole is shown as it came.
  const usual = Object.keys(rest).every((field) => field === "activeForm" || field === "id");
  return typeof content === "string" && typeof status === "string" && usual;
}

function Todos({ todos }: { todos: readonly Todo[] }) {
  return (
    <ul class="todos">
      {todos.map(({ content, status }) => (
        <li class={statuses.has(status) ? status : undefined}>
          <span class="box" role="img" aria-label={status}>
            {status === "completed" ? "✓" : status === "in_progress" ? "▸" : "○"}
          </span>
          <Visible text={content} />
        </li>
      ))}
    </ul>
  );
}

function File({ path, children }: { path: string; children: ComponentChildren }) {
  return (
    <Field name="file">
      <div class="path">
        <Visible text={path} />
      </div>
      {children}
    </Field>
  );
}

function Field({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <div class="field">
      <div class="field-name">
        <Visible text={name} />
      </div>
      {children}
    </div>
  );
}

/** What an edit takes away and what it puts there. */
function Diff({ before, after }: { before: string; after: string }) {
  if (before.split("\n").length + after.split("\n").length > maxCompared)
    return (
      <>
        <Code text={before} />
        <Code text={after} />
      </>
    );
  const parts = diffLines(before, after);
  const text = parts.map(({ value }) => value).join("");
  return (
    <>
      {isLong(text) && <div class="extent">{extent(text)}</div>}
      <pre class="diff" tabIndex={0}>
        {parts.map(({ added, removed, value }) => {
          const sign = added ? "+" : removed ? "−" : " ";
          const kind = added ? "added" : removed ? "removed" : undefined;
          return value
            .replace(/\n$/, "")
            .split("\n")
            .map((line) => (
              <div class={kind}>
                <span class="sign">{sign}</span>
                <Visible text={line} />
              </div>
            ));
        })}
      </pre>
    </>
  );
}

function languageOf(path: string): string | undefined {
  const extension = path.slice(path.lastIndexOf(".") + 1).toLowerCase();
  return Object.hasOwn(extensions, extension) ? extensions[extension] : undefined;
}
