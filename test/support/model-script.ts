/** A content block of the Messages API, as far as scripts care. */
interface ContentBlock {
  readonly type: string;
  readonly text?: string;
  readonly content?: string | readonly ContentBlock[];
}

/** A request to the Messages API, as far as scripts care. */
export interface ModelRequest {
  readonly model: string;
  readonly stream?: boolean;
  readonly tools?: readonly { readonly name: string }[];
  readonly messages?: readonly {
    readonly role: string;
    readonly content: string | readonly ContentBlock[];
  }[];
  readonly output_config?: { readonly format?: { readonly schema?: { properties?: object } } };
}

/** One block of an answer. Text comes in the given pieces, `delayMs` apart. */
export type Part =
  | { readonly kind: "text"; readonly pieces: readonly string[]; readonly delayMs?: number }
  | { readonly kind: "thinking"; readonly text: string }
  | { readonly kind: "tool"; readonly name: string; readonly input: object };

/** What the model answers, and how the answer ends. */
export type Decision =
  | { readonly kind: "failure"; readonly status: number }
  | { readonly kind: "stall" }
  | {
      readonly kind: "answer";
      readonly parts: readonly Part[];
      readonly stop: string;
      readonly end?: "hang" | "cut" | "error";
    };

interface Step {
  readonly verb: string;
  readonly argument: string;
}

/** The directives that apply, and how many rounds of tool results came since. */
interface Script {
  readonly steps: readonly Step[];
  readonly text: string;
  readonly rounds: number;
  readonly lastResult: string;
}

const PIECE = /.{1,12}/gs;
const LARGE_PIECE = /.{1,65536}/gs;
const REMINDER = /^\s*<(system-reminder|command-|local-command)|^\[Request interrupted/;

/** Verbs that make the model call tools: one entry per round, each with one or more calls. */
const TOOLS: Readonly<Record<string, (argument: string) => readonly (readonly Part[])[]>> = {
  bash: (command) => [[bash(command)]],
  write: (path) => [[tool("Write", { file_path: path, content: "written by the fake model\n" })]],
  read: (path) => [[tool("Read", { file_path: path })]],
  edit: (argument) => {
    const [path, before = "fake", after = "scripted"] = argument.split(":");
    return [[tool("Edit", { file_path: path, old_string: before, new_string: after })]];
  },
  ask: () => [[tool("AskUserQuestion", { questions: [COLOUR] })]],
  plan: (plan) => [[tool("ExitPlanMode", { plan: plan || "# Plan\n1. do it" })]],
  webfetch: (url) => [[tool("WebFetch", { url, prompt: "summarise" })]],
  todo: () => [
    [tool("TaskCreate", { subject: "first", description: "first", activeForm: "Doing first" })],
  ],
  subagent: (argument) => {
    const [, count, prompt] = /^(?:(\d+)x )?(.*)$/s.exec(argument) ?? [];
    const call = tool("Agent", {
      description: "scripted helper",
      prompt: prompt || "say:hello from the sub-agent",
      subagent_type: "general-purpose",
    });
    return [Array.from({ length: Number(count) || 1 }, () => call)];
  },
  tool: (argument) => {
    const colon = argument.indexOf(":");
    if (colon < 0) return [[tool(argument, {})]];
    return [[tool(argument.slice(0, colon), Object(JSON.parse(argument.slice(colon + 1))))]];
  },
  parallel: (argument) => {
    const [count, ...words] = argument.split(":");
    const command = words.join(":") || "echo parallel-#";
    return [
      Array.from({ length: Number(count) || 2 }, (_, index) =>
        bash(command.replaceAll("#", String(index))),
      ),
    ];
  },
  loop: (count) =>
    Array.from({ length: Number(count) || 3 }, (_, index) => [bash(`echo round-${index}`)]),
};

const COLOUR = {
  question: "Which colour?",
  header: "Colour",
  multiSelect: false,
  options: [
    { label: "Red", description: "warm" },
    { label: "Blue", description: "cold" },
  ],
};

/** Verbs that make the last message: its text, and how it ends. */
const CLOSINGS: Readonly<Record<string, (argument: string) => Closing>> = {
  say: (text) => ({ pieces: text.match(PIECE) ?? ["ok"] }),
  stream: (count) => ({ pieces: Array.from({ length: Number(count) }, (_, i) => `w${i} `) }),
  big: (count) => ({ pieces: "x".repeat(Number(count)).match(LARGE_PIECE) ?? [] }),
  slow: (seconds) => ({
    pieces: Array.from({ length: Number(seconds) * 4 }, (_, i) => `t${i} `),
    delayMs: 250,
  }),
  hang: () => ({ pieces: ["about to hang "], end: "hang" }),
  cut: () => ({ pieces: ["about to cut "], end: "cut" }),
  midstream: () => ({ pieces: ["before the error "], end: "error" }),
  maxtokens: () => ({ pieces: ["truncat"], stop: "max_tokens" }),
  refusal: () => ({ stop: "refusal" }),
};

interface Closing {
  readonly pieces?: readonly string[];
  readonly delayMs?: number;
  readonly end?: "hang" | "cut" | "error";
  readonly stop?: string;
}

const OTHERS = new Set(["thinking", "error", "flaky", "stall"]);

/** Decides what to answer. `failures` counts per prompt how often `flaky` has failed. */
export function decide(request: ModelRequest, failures: Map<string, number>): Decision {
  if (!request.tools?.length || request.output_config?.format) return sideAnswer(request);
  const script = readScript(request);
  for (const { verb, argument } of script.steps) {
    if (verb === "stall") return { kind: "stall" };
    if (verb === "error") {
      const [status, model = ""] = argument.split(":");
      if (request.model.includes(model)) return { kind: "failure", status: Number(status) };
    }
    if (verb === "flaky") {
      const failed = failures.get(script.text) ?? 0;
      failures.set(script.text, failed + 1);
      if (failed < Number(argument)) return { kind: "failure", status: 529 };
    }
  }
  return answer(script);
}

function answer({ steps, rounds, lastResult }: Script): Decision {
  const calls = steps.flatMap(({ verb, argument }) => TOOLS[verb]?.(argument) ?? []);
  const thoughts = steps
    .filter(({ verb }) => verb === "thinking")
    .map(({ argument }): Part => ({ kind: "thinking", text: argument || "let me think" }));
  const next = calls[rounds];
  if (next) {
    const parts = rounds === 0 ? [...thoughts, ...next] : next;
    return { kind: "answer", parts, stop: "tool_use" };
  }
  const closings = steps.flatMap(({ verb, argument }) => CLOSINGS[verb]?.(argument) ?? []);
  const texts = closings.flatMap(({ pieces, delayMs = 0 }): Part[] =>
    pieces ? [{ kind: "text", pieces, delayMs }] : [],
  );
  const stop = closings.find((closing) => closing.stop)?.stop ?? "end_turn";
  const end = closings.find((closing) => closing.end)?.end;
  if (texts.length === 0 && stop !== "refusal") {
    const text = calls.length > 0 ? `done: ${lastResult.slice(0, 200)}` : "ok";
    texts.push({ kind: "text", pieces: [text] });
  }
  const parts = calls.length > 0 ? texts : [...thoughts, ...texts];
  return { kind: "answer", parts, stop, ...(end ? { end } : {}) };
}

/** A call that is not part of the conversation: a title, a summary, a classifier. */
function sideAnswer(request: ModelRequest): Decision {
  const fields = Object.keys(request.output_config?.format?.schema?.properties ?? {});
  const text =
    fields.length > 0
      ? JSON.stringify(Object.fromEntries(fields.map((field) => [field, "Scripted title"])))
      : "Scripted side answer";
  return { kind: "answer", parts: [{ kind: "text", pieces: [text] }], stop: "end_turn" };
}

/** The last text typed by the user that holds directives; one without any is echoed. */
function readScript(request: ModelRequest): Script {
  let rounds = 0;
  let lastResult = "";
  for (const message of (request.messages ?? []).toReversed()) {
    if (message.role !== "user") continue;
    const blocks = blocksOf(message.content);
    const texts = blocks
      .flatMap(({ type, text = "" }) => (type === "text" && !REMINDER.test(text) ? [text] : []))
      .map((text) => text.trim());
    // Consecutive user messages arrive merged: the last block wins.
    for (const text of texts.toReversed()) {
      const steps = stepsOf(text);
      if (steps.length > 0) return { steps, text, rounds, lastResult };
    }
    const results = blocks.filter(({ type }) => type === "tool_result");
    const text = texts.at(-1);
    if (results.length > 0) {
      rounds += 1;
      lastResult ||= plainText(results.at(-1)?.content);
    } else if (text) {
      const steps = [{ verb: "say", argument: `echo: ${text.slice(0, 200)}` }];
      return { steps, text, rounds, lastResult };
    }
  }
  return { steps: [{ verb: "say", argument: "nothing to do" }], text: "", rounds, lastResult };
}

function stepsOf(text: string): Step[] {
  return text.split(/\n| ;; /).flatMap((line): Step[] => {
    const colon = line.indexOf(":");
    const verb = (colon < 0 ? line : line.slice(0, colon)).trim();
    const known = Object.hasOwn(TOOLS, verb) || Object.hasOwn(CLOSINGS, verb) || OTHERS.has(verb);
    return known ? [{ verb, argument: colon < 0 ? "" : line.slice(colon + 1).trim() }] : [];
  });
}

function blocksOf(content: string | readonly ContentBlock[]): readonly ContentBlock[] {
  return typeof content === "string" ? [{ type: "text", text: content }] : content;
}

function plainText(content: string | readonly ContentBlock[] = ""): string {
  return blocksOf(content)
    .map(({ text, type }) => text ?? `[${type}]`)
    .join("");
}

function tool(name: string, input: object): Part {
  return { kind: "tool", name, input };
}

function bash(command: string): Part {
  return tool("Bash", { command, description: "Run a scripted command" });
}
