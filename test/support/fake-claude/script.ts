import { startTask } from "./background.ts";
import { runBash, startDaemon } from "./bash.ts";
import { assistant } from "./printer.ts";
import { record } from "./record.ts";
import { conclude, newCall, QUESTION, refuse, useTool } from "./tools.ts";
import type { Ending } from "./result.ts";
import type { Turn } from "./turn.ts";

/** One line of a prompt: `verb` or `verb:argument`. */
interface Step {
  readonly verb: Verb;
  readonly argument: string;
}

/** What a prompt asks this stand-in to do, in order. */
export type Script = readonly Step[];

type Action = (turn: Turn, argument: string) => void | Promise<void>;

const PLAN = "# Plan\n1. do it";

/** What happens before `init` is printed; the rest of the prompt follows it. */
const PRELUDE = {
  hanginit: async (turn) => turn.wait(),
  exit1: async (turn, argument) => {
    process.stderr.write(`${argument || "something went wrong"}\n`);
    await turn.agent.exit(1);
  },
  clear: (turn) => turn.agent.clearSession(),
  "/clear": (turn) => turn.agent.clearSession(),
} satisfies Record<string, Action>;

/** What happens after `init`. The documentation of each verb is in fake-claude.ts. */
const ACTIONS = {
  say: async (turn, argument) => turn.say(argument || "ok"),
  stream: async (turn, argument) => {
    const [count = 1, delayMs = 0] = numbers(argument);
    const texts = Array.from({ length: count }, (_, index) => `w${index} `);
    await turn.say(texts.join(""), { texts, delayMs });
  },
  flood: async (turn, argument) => {
    const [count = 1_000, bytes = 100, delayMs = 0] = numbers(argument);
    const { printer, model } = turn.agent;
    const message = { id: printer.nextId("msg_fake"), model, requestId: "req_flood", blocks: 0 };
    const block = { type: "text", text: "x".repeat(bytes) } as const;
    for (let left = count; left > 0; left -= 1) {
      turn.signal.throwIfAborted();
      await printer.line(assistant(message, block));
      if (delayMs > 0) await turn.wait(delayMs);
    }
  },
  big: async (turn, argument) => turn.say("x".repeat(Number(argument) || 5_000_000)),
  thinking: (turn, argument) => {
    const thinking = argument || "let me think";
    turn.lead({ type: "thinking", thinking, signature: "ZmFrZQ==" });
  },
  tool: async (turn, argument) => useTool(turn, newCall(turn, argument)),
  early: async (turn, argument) => {
    const call = newCall(turn, argument || `Write:{"file_path":"early.txt","content":"early"}`);
    const [answer] = await Promise.all([turn.ask(call), turn.call(call)]);
    await conclude(turn, call, answer);
  },
  ask: async (turn) => useTool(turn, newCall(turn, "AskUserQuestion", QUESTION)),
  plan: async (turn, argument) =>
    useTool(turn, newCall(turn, "ExitPlanMode", { plan: argument || PLAN })),
  parallel: async (turn, argument) => {
    const [count, name = "Bash"] = argument.split(":");
    const calls = Array.from({ length: Number(count) || 3 }, (_, index) =>
      newCall(turn, name, { command: `echo parallel-${index}`, description: `Call ${index}` }),
    );
    await turn.call(...calls);
    await Promise.all(
      calls.map(async (call, index) => {
        const answer = await turn.ask(call, { agent_id: `a${String(index).padStart(16, "0")}` });
        await conclude(turn, call, answer);
      }),
    );
  },
  bash: async (turn, argument) => {
    const input = { command: argument, description: "Run a scripted command" };
    const call = newCall(turn, "Bash", input);
    await turn.call(call);
    const done = await runBash(argument, turn.signal);
    if (done.code === 0) {
      const content = done.stdout.trimEnd() || "(Bash completed with no output)";
      await turn.outcome(call, content, { ...done, interrupted: false, isImage: false });
      return;
    }
    await turn.outcome(call, `Exit code ${done.code}\n${done.stdout}${done.stderr}`.trimEnd());
  },
  sleep: async (turn, argument) => turn.wait(Number(argument) || 0),
  hang: async (turn) => turn.wait(),
  stubborn: async (turn) => {
    turn.agent.quirks.stubborn = true;
    await turn.wait();
  },
  ignoreinterrupt: (turn) => {
    turn.agent.quirks.ignoreInterrupt = true;
  },
  nocontrol: (turn) => {
    turn.agent.quirks.mute = true;
  },
  noresult: async (turn) => {
    await turn.agent.exit(0);
  },
  cutline: async (turn) => {
    const line = turn.agent.printer.encode({ type: "result", subtype: "success", result: "cut" });
    await turn.agent.printer.raw(line.slice(0, line.length / 2));
    await turn.agent.exit(0);
  },
  junk: async (turn, argument) => {
    await turn.agent.printer.raw(`${argument || "this is not JSON"}\n\n{"type":\n[1,2]\nnull\n`);
  },
  utf8split: async (turn, argument) => {
    const { printer, model } = turn.agent;
    const text = argument || "Grüße 👋 世界";
    const message = { id: printer.nextId("msg_fake"), model, requestId: "req_split", blocks: 0 };
    const bytes = Buffer.from(printer.encode(assistant(message, { type: "text", text })));
    const first = bytes.findIndex((byte) => byte >= 0xc0);
    const middle = first < 0 ? bytes.length >> 1 : first + 1;
    await printer.raw(bytes.subarray(0, middle));
    await turn.wait(30);
    await printer.raw(bytes.subarray(middle));
  },
  stderr: (_turn, argument) => {
    const line = `${"e".repeat(79)}\n`;
    const bytes = Number(argument) || 100_000;
    process.stderr.write(line.repeat(Math.ceil(bytes / line.length)).slice(0, bytes));
  },
  error: async (turn, argument) => {
    const text = argument || "API Error: 400 scripted";
    await turn.agent.printer.synthetic(text, "unknown");
    turn.end(failure(text, null));
  },
  autherror: async (turn) => {
    const text = "Not logged in · Please run /login";
    await turn.agent.printer.synthetic(text, "authentication_failed");
    turn.end(failure(text, null));
  },
  retry: async (turn, argument) => retries(turn, Number(argument) || 1, 529),
  retrystorm: async (turn, argument) => {
    await retries(turn, Number(argument) || 10, 401);
    const text = "Invalid API key · Fix external API key";
    await turn.agent.printer.synthetic(text, "authentication_failed");
    turn.end(failure(text, 401));
  },
  fallback: async (turn) => {
    const original = turn.agent.model;
    await retries(turn, 2, 529);
    turn.agent.model = "claude-sonnet-5";
    await turn.agent.printer.system("model_fallback", {
      trigger: "overloaded",
      original_model: original,
      fallback_model: turn.agent.model,
      content: "Switched to Sonnet 5 due to high demand",
    });
  },
  compact: async (turn) => {
    const { printer } = turn.agent;
    await printer.system("status", { status: "compacting" });
    await printer.system("status", { status: null, compact_result: "success" });
    await printer.system("compact_boundary", {
      compact_metadata: { trigger: "auto", pre_tokens: 150_000 },
    });
  },
  ratelimit: async (turn) => {
    await turn.agent.printer.line({
      type: "rate_limit_event",
      rate_limit_info: {
        status: "allowed_warning",
        resetsAt: Math.floor(Date.now() / 1_000) + 3_600,
        rateLimitType: "five_hour",
        utilization: 0.9,
      },
    });
  },
  denied: async (turn) => {
    const call = newCall(turn, "Write", { file_path: "denied.txt", content: "x" });
    await turn.call(call);
    await refuse(turn, call, {
      message: "Permission to use Write has been denied.",
      announced: true,
    });
  },
  background: async (turn, argument) => {
    const [ms, ...step] = argument.split(":");
    await startTask(turn, Number(ms) || 0, step.join(":"));
  },
  leave: async () => startDaemon("exec sleep 300"),
  child: async (_turn, argument) => startDaemon(argument),
  inittwice: async (turn) => turn.agent.init(),
  afterresult: (turn) => {
    turn.agent.afterResult.push(async () => {
      const { printer } = turn.agent;
      await printer.system("task_updated", { task_id: "blate", patch: { status: "completed" } });
      await printer.system("task_notification", {
        task_id: "blate",
        tool_use_id: "toolu_late",
        status: "completed",
        output_file: "",
        summary: "late",
      });
    });
  },
  maxturns: (turn) => {
    turn.end({
      subtype: "error_max_turns",
      isError: true,
      errors: ["Reached maximum number of turns (2)"],
      stopReason: "tool_use",
      terminalReason: "max_turns",
    });
  },
  budget: (turn) => {
    turn.agent.quirks.overBudget = true;
    overBudget(turn);
  },
  exitafter: (turn, argument) => {
    turn.agent.afterResult.push(() => {
      setTimeout(() => void turn.agent.exit(1), Number(argument) || 0);
    });
  },
  selfkill: async (turn, argument) => {
    await turn.agent.printer.raw("");
    record("selfkill", { signal: argument || "SIGKILL" });
    Bun.spawnSync(["kill", `-${(argument || "SIGKILL").replace("SIG", "")}`, `${process.pid}`]);
  },
} satisfies Record<string, Action>;

type Verb = keyof typeof ACTIONS | keyof typeof PRELUDE | "dup" | "echo";

/** Reads the directives of a prompt. A prompt without any is echoed. */
export function readScript(prompt: string): Script {
  const steps = prompt.split("\n").flatMap((line): Step[] => {
    const colon = line.indexOf(":");
    const verb = (colon < 0 ? line : line.slice(0, colon)).trim();
    if (!isVerb(verb)) return [];
    return [{ verb, argument: colon < 0 ? "" : line.slice(colon + 1) }];
  });
  return steps.length > 0 ? steps : [{ verb: "echo", argument: prompt }];
}

/** Does what a script says, up to the result; returns whether there is to be one. */
export async function perform(turn: Turn, script: Script): Promise<boolean> {
  if (script.some(({ verb }) => verb === "dup")) return false;
  for (const { verb, argument } of script) {
    if (isPrelude(verb)) await PRELUDE[verb](turn, argument);
  }
  const loggedOut =
    process.env["FAKE_CLAUDE_LOGGED_OUT"] === "1" ||
    script.some(({ verb }) => verb === "autherror");
  await turn.agent.init(loggedOut ? "none" : undefined);
  if (turn.agent.quirks.overBudget) overBudget(turn);
  else if (process.env["FAKE_CLAUDE_LOGGED_OUT"] === "1") await ACTIONS.autherror(turn);
  for (const { verb, argument } of script) {
    if (turn.over) break;
    turn.signal.throwIfAborted();
    if (verb === "echo") await turn.say(argument ? `echo: ${argument}` : "ok");
    if (isAction(verb)) await ACTIONS[verb](turn, argument);
  }
  return true;
}

async function retries(turn: Turn, count: number, status: number): Promise<void> {
  for (let attempt = 1; attempt <= count; attempt += 1) {
    await turn.agent.printer.system("api_retry", {
      attempt,
      max_retries: Math.max(10, count),
      retry_delay_ms: 500 * 2 ** Math.min(attempt - 1, 6),
      error_status: status,
      error: status === 401 ? "authentication_failed" : "overloaded",
    });
    await turn.wait(1);
  }
}

function failure(text: string, status: number | null): Ending {
  return {
    subtype: "success",
    isError: true,
    text,
    stopReason: "stop_sequence",
    terminalReason: "completed",
    apiErrorStatus: status,
  };
}

function overBudget(turn: Turn): void {
  turn.end({
    subtype: "error_max_budget_usd",
    isError: true,
    errors: ["Reached maximum budget ($0.001)"],
    stopReason: "tool_use",
  });
}

function numbers(argument: string): number[] {
  return argument ? argument.split(":").map(Number) : [];
}

function isAction(verb: string): verb is keyof typeof ACTIONS {
  return Object.hasOwn(ACTIONS, verb);
}

function isPrelude(verb: string): verb is keyof typeof PRELUDE {
  return Object.hasOwn(PRELUDE, verb);
}

function isVerb(verb: string): verb is Verb {
  return verb === "dup" || isAction(verb) || isPrelude(verb);
}
