import { afterAll, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const FAKE = join(import.meta.dir, "support/fake-claude.ts");
const LIVE = [
  "-p",
  "--output-format=stream-json",
  "--verbose",
  "--input-format=stream-json",
  "--permission-prompt-tool=stdio",
];
const ALLOW = (input: object) => ({ behavior: "allow", updatedInput: { ...input, seen: 1 } });
const REFUSED_ID = "e93c2365-ff53-4c87-b245-daa40561a124";

/** Fields that every line of a kind has in the transcripts of the real CLI. */
const REQUIRED: Readonly<Record<string, string>> = {
  "system/init":
    "cwd session_id tools mcp_servers model permissionMode slash_commands apiKeySource claude_code_version output_style agents skills plugins uuid",
  "system/status": "status uuid session_id",
  "system/api_retry": "attempt max_retries retry_delay_ms error_status error uuid session_id",
  "system/task_started": "task_id tool_use_id description task_type uuid session_id",
  "system/task_notification": "task_id tool_use_id status output_file summary uuid session_id",
  "system/permission_denied": "tool_name tool_use_id decision_reason_type message uuid session_id",
  stream_event: "event parent_tool_use_id uuid session_id",
  assistant: "message parent_tool_use_id uuid session_id",
  user: "message parent_tool_use_id timestamp uuid session_id",
  result:
    "subtype is_error duration_ms duration_api_ms num_turns stop_reason total_cost_usd usage modelUsage permission_denials uuid session_id",
  control_request: "request_id request",
  control_response: "response",
  control_cancel_request: "request_id",
};

/** A line that it printed, as far as these tests look into it. */
interface Line {
  readonly type: string;
  readonly subtype?: string;
  readonly session_id?: string;
  readonly request_id?: string;
  readonly terminal_reason?: string;
  readonly claude_code_version?: string;
  readonly total_cost_usd?: number;
  readonly usage?: { readonly output_tokens: number };
  readonly event?: { readonly type: string };
  readonly message?: { readonly content: readonly { readonly type: string }[] };
  readonly request?: { readonly subtype: string; readonly input: object };
  readonly response?: { readonly subtype: string };
}

/** An event that it recorded. */
interface Entry {
  readonly event: string;
  readonly child: number;
  readonly line: { readonly message: { readonly content: string } };
}

const root = realpathSync(mkdtempSync(join(tmpdir(), "fake-claude-")));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** A running stand-in, with what it printed and recorded so far. */
class Fake implements AsyncDisposable {
  readonly lines: Line[] = [];
  readonly log = join(root, `${crypto.randomUUID()}.log`);
  readonly process: Bun.Subprocess<"pipe", "pipe", "pipe">;
  readonly #reader: AsyncIterator<string>;
  readonly #answer: ((input: object) => object) | undefined;

  constructor(argv: readonly string[], options: { cwd?: string; answer?: typeof ALLOW } = {}) {
    this.#answer = options.answer;
    this.process = Bun.spawn([FAKE, ...argv], {
      cwd: options.cwd ?? root,
      detached: true,
      stdin: "pipe",
      stdout: "pipe",
      stderr: "pipe",
      env: {
        ...process.env,
        CLAUDE_CONFIG_DIR: join(root, "config"),
        FAKE_CLAUDE_LOG: this.log,
        IS_SANDBOX: "1",
        POCKET_AGENT_RUN: "marker",
      },
    });
    this.#reader = textLines(this.process.stdout);
  }

  send(line: object): void {
    void this.process.stdin.write(`${JSON.stringify(line)}\n`);
    void this.process.stdin.flush();
  }

  prompt(content: string, uuid: string = crypto.randomUUID()): void {
    this.send({ type: "user", uuid, message: { role: "user", content } });
  }

  interrupt(): void {
    this.send({ type: "control_request", request_id: "i", request: { subtype: "interrupt" } });
  }

  /** Reads on, answering requests, until a line is of this kind; undefined when there is no more. */
  async until(kind: string): Promise<Line | undefined> {
    for (;;) {
      const { value, done } = await this.#reader.next();
      if (done) return undefined;
      const line: Line = JSON.parse(value);
      this.lines.push(line);
      const { request, request_id } = line;
      if (request && this.#answer) {
        const response = this.#answer(request.input);
        const success = { subtype: "success", request_id, response };
        this.send({ type: "control_response", response: success });
      }
      if (kindOf(line).startsWith(kind)) return line;
    }
  }

  /** Says it all, ends the input, and reads the output to its end. */
  async converse(...prompts: string[]): Promise<number> {
    for (const prompt of prompts) {
      this.prompt(prompt);
      await this.until("result");
    }
    void this.process.stdin.end();
    await this.until("nothing more");
    return this.process.exited;
  }

  records(event: string): Entry[] {
    const lines = readFileSync(this.log, "utf8").trim().split("\n");
    return lines.map((line): Entry => JSON.parse(line)).filter((entry) => entry.event === event);
  }

  /** The process ids of the commands it started, once there are as many. */
  async children(count: number): Promise<number[]> {
    while (this.records("child").length < count) await Bun.sleep(5);
    return this.records("child").map(({ child }) => child);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.process.kill("SIGKILL");
    await this.process.exited;
  }
}

async function* textLines(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

function kindOf({ type, subtype, request, response, event, message }: Line): string {
  if (subtype) return `${type}/${subtype}`;
  const inner = request?.subtype ?? response?.subtype ?? event?.type ?? message?.content[0]?.type;
  return inner ? `${type}/${inner}` : type;
}

/** Kinds of lines; deltas that follow each other count as one. */
function kinds(lines: readonly Line[]): string[] {
  const delta = "stream_event/content_block_delta";
  return lines.map(kindOf).filter((kind, at, all) => kind !== delta || all[at - 1] !== delta);
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    // Gone.
    return false;
  }
}

async function gone(pid: number): Promise<void> {
  while (alive(pid)) await Bun.sleep(5);
}

const STREAMED =
  "stream_event/message_start stream_event/content_block_start stream_event/content_block_delta assistant/text stream_event/content_block_stop stream_event/message_delta stream_event/message_stop";
const TOOL = "assistant/tool_use control_request/can_use_tool user/tool_result assistant/text";

describe("the fake claude prints the lines of the real one in their order", () => {
  test.each([
    ["say:hi", [], "system/init assistant/text result/success"],
    ["hi", [], "system/init assistant/text result/success"],
    [
      "stream:200",
      ["--include-partial-messages"],
      `system/init system/status ${STREAMED} result/success`,
    ],
    ["thinking:hmm\nsay:done", [], "system/init assistant/thinking assistant/text result/success"],
    [`tool:Write:{"file_path":"/a"}`, [], `system/init ${TOOL} result/success`],
    [
      `tool:Write:{"file_path":"a"}`,
      ["--permission-mode=acceptEdits"],
      "system/init assistant/tool_use user/tool_result assistant/text result/success",
    ],
    [
      `tool:Write:{"file_path":"a"}`,
      ["--permission-mode=dontAsk"],
      "system/init assistant/tool_use system/permission_denied user/tool_result assistant/text result/success",
    ],
    ["ask", ["--permission-mode=bypassPermissions"], `system/init ${TOOL} result/success`],
    [
      "plan",
      ["--permission-mode=plan"],
      "system/init assistant/tool_use control_request/can_use_tool system/status user/tool_result assistant/text result/success",
    ],
    [
      "early",
      [],
      "system/init control_request/can_use_tool assistant/tool_use user/tool_result assistant/text result/success",
    ],
    [
      "parallel:2",
      [],
      "system/init assistant/tool_use assistant/tool_use control_request/can_use_tool control_request/can_use_tool user/tool_result user/tool_result assistant/text result/success",
    ],
    ["error:no", [], "system/init assistant/text result/success"],
    ["retry:2", [], "system/init system/api_retry system/api_retry assistant/text result/success"],
    [
      "fallback",
      [],
      "system/init system/api_retry system/api_retry system/model_fallback assistant/text result/success",
    ],
    ["maxturns", [], "system/init result/error_max_turns"],
    ["inittwice", [], "system/init system/init assistant/text result/success"],
    [
      "background:1",
      [],
      "system/init assistant/tool_use system/task_started user/tool_result assistant/text result/success system/task_updated system/task_notification system/init assistant/text result/success",
    ],
    ["noresult", [], "system/init"],
  ])("%s %p", async (prompt, options, expected) => {
    await using fake = new Fake([...LIVE, ...options], { answer: ALLOW });
    await fake.converse(prompt);
    expect(kinds(fake.lines).join(" ")).toBe(expected);
    for (const line of fake.lines) {
      const required = REQUIRED[kindOf(line)] ?? REQUIRED[line.type] ?? "uuid session_id";
      expect(Object.keys(line)).toContainValues(required.split(" "));
    }
  });

  test("an interrupt withdraws the request, and the process goes on", async () => {
    await using fake = new Fake(LIVE);
    fake.prompt(`tool:Write:{"file_path":"/a"}`);
    const request = await fake.until("control_request");
    fake.interrupt();
    expect((await fake.until("result"))?.terminal_reason).toBe("aborted_tools");
    expect(kinds(fake.lines).slice(-5)).toEqual([
      "control_cancel_request",
      "control_response/success",
      "user/tool_result",
      "user/text",
      "result/error_during_execution",
    ]);
    expect(fake.lines.at(-6)?.request_id).toBe(request?.request_id);
    expect(await fake.converse("say:next")).toBe(0);
  });
});

describe("the fake claude keeps to the command line of the real one", () => {
  test.each([
    [["--no-such-flag"], "error: unknown option '--no-such-flag'"],
    [
      ["-p", "--output-format=stream-json"],
      "Error: When using --print, --output-format=stream-json requires --verbose",
    ],
    [
      ["-p", "--input-format=stream-json"],
      "Error: --input-format=stream-json requires output-format=stream-json.",
    ],
    [[...LIVE, "--session-id=x"], "Error: Invalid session ID. Must be a valid UUID."],
    [[...LIVE, `--resume=${REFUSED_ID}`], `No conversation found with session ID: ${REFUSED_ID}`],
    [
      ["-p", "--allowed-tools", "Write", "a prompt"],
      "Error: Input must be provided either through stdin or as a prompt argument when using --print",
    ],
  ])("%p", async (argv, message) => {
    await using fake = new Fake(argv);
    void fake.process.stdin.end();
    expect((await fake.process.stderr.text()).trim()).toBe(message);
    expect(await fake.process.exited).toBe(1);
  });

  test("a session is resumed in its own directory only, and a repeated message is dropped", async () => {
    const id = crypto.randomUUID();
    const said = crypto.randomUUID();
    await using first = new Fake([...LIVE, `--session-id=${id}`]);
    first.prompt("say:one", said);
    expect((await first.until("result"))?.session_id).toBe(id);
    await first.converse();
    await using again = new Fake([...LIVE, `--resume=${id}`]);
    again.prompt("say:one", said);
    expect(await again.converse()).toBe(0);
    expect(again.lines).toEqual([]);
    await using elsewhere = new Fake([...LIVE, `--resume=${id}`], { cwd: tmpdir() });
    expect(await elsewhere.until("result")).toMatchObject({ num_turns: 0, session_id: id });
  });
});

describe("the fake claude misbehaves as the real one", () => {
  test("an interrupt kills its commands, SIGTERM leaves them", async () => {
    await using fake = new Fake(LIVE);
    fake.prompt("bash:sleep 300");
    await fake.until("assistant/tool_use");
    const [killed = 0] = await fake.children(1);
    fake.interrupt();
    await fake.until("result");
    await gone(killed);
    fake.prompt("bash:exec sleep 300");
    await fake.until("assistant/tool_use");
    const [, left = 0] = await fake.children(2);
    fake.process.kill("SIGTERM");
    expect(await fake.process.exited).toBe(143);
    expect(alive(left)).toBeTrue();
    process.kill(left, "SIGKILL");
  });

  test("stubborn outlives interrupt, end of input and SIGTERM", async () => {
    await using fake = new Fake(LIVE);
    fake.prompt("say:ready\nstubborn");
    await fake.until("assistant/text");
    fake.interrupt();
    void fake.process.stdin.end();
    while (fake.records("end").length === 0) await Bun.sleep(5);
    // Whoever records a second signal has outlived the first.
    for (const count of [1, 2]) {
      fake.process.kill("SIGTERM");
      while (fake.records("signal").length < count) await Bun.sleep(5);
    }
    expect(fake.records("exit")).toEqual([]);
  });

  test("a flood waits for its reader and can be interrupted", async () => {
    await using fake = new Fake(LIVE);
    fake.prompt("flood:100000:10000");
    await fake.until("assistant/text");
    fake.interrupt();
    await fake.until("result");
    expect(fake.lines.length).toBeLessThan(100_000);
    expect(fake.lines.at(-1)?.terminal_reason).toBe("aborted_streaming");
  });

  test("cost adds up over the life of a process, usage does not", async () => {
    await using fake = new Fake(LIVE);
    await fake.converse("say:one", "say:two");
    const [one, two] = fake.lines.filter(({ type }) => type === "result");
    expect(one?.total_cost_usd).toBeGreaterThan(0);
    expect(two?.total_cost_usd).toBeCloseTo(2 * (one?.total_cost_usd ?? 0), 10);
    expect(two?.usage).toEqual(one?.usage);
  });

  test("it runs nothing that the project brings for bun, and records how it was started", async () => {
    const cwd = realpathSync(mkdtempSync(join(root, "hostile-")));
    const hit = join(cwd, "hit");
    writeFileSync(join(cwd, "bunfig.toml"), 'preload = ["./evil.ts"]');
    writeFileSync(join(cwd, "evil.ts"), `await Bun.write(${JSON.stringify(hit)}, "");`);
    writeFileSync(join(cwd, ".env"), "FAKE_CLAUDE_VERSION=9.9.9");
    await using fake = new Fake(LIVE, { cwd });
    await fake.converse("say:x");
    expect(existsSync(hit)).toBeFalse();
    expect(fake.lines[0]?.claude_code_version).toBe("2.1.197");
    expect(fake.records("start")[0]).toMatchObject({
      argv: LIVE,
      cwd,
      marker: "marker",
      umask: process.umask(),
    });
    expect(fake.records("stdin")[0]?.line.message.content).toBe("say:x");
  });
});
