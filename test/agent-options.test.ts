import { expect, test } from "bun:test";
import * as fc from "fast-check";
import * as v from "valibot";
import { agentOptions, image, toolRule } from "../src/contract/agent-options.ts";

const accepts = (options: unknown) => v.safeParse(agentOptions, options).success;
const ruleOf = (text: string) => {
  const { success, output } = v.safeParse(toolRule, text);
  return success ? output : undefined;
};

test.each([
  "Read",
  "Bash(git *)",
  "Bash(git log:*, git diff:*)",
  "Bash(echo $(date))",
  "Edit(/app/(auth)/**)",
  "Edit(/src/**)",
  "mcp__server__*",
  "mcp__server__tool",
  "Read()",
  "Bash(日本語)",
  `Bash(${"x".repeat(512)})`,
])("the tool rule %s passes as it is", (rule) => {
  expect(ruleOf(rule)).toBe(rule);
});

test.each([
  ["read", "Read"],
  ["write", "Write"],
  ["edit", "Edit"],
  ["run", "Bash"],
  ["bash", "Bash"],
  ["run(git *)", "Bash(git *)"],
])("the tool rule %s means %s", (rule, meaning) => {
  expect(ruleOf(rule)).toBe(meaning);
});

test.each([
  "",
  " ",
  "Read(x),Bash",
  "Read,Bash",
  "Read(x)Bash",
  "Read(x)(y)",
  "Read(x",
  "Read)x(",
  "Read(x))",
  "Read((x)",
  "Read(a(b),Bash,(c))",
  'Bash(curl "(a) Bash (b)")',
  "Bash(a() Bash)",
  "(x)",
  "Bash (x)",
  " Read",
  "Read ",
  "Read\n",
  "Bash(a\nb)",
  "Bash(a\0b)",
  "--settings={}",
  "-p",
  "*",
  "1Read",
  "Re.ad",
  "grep",
  "webFetch",
  "mcp_server",
  "constructor",
  `Bash(${"x".repeat(513)})`,
  "x".repeat(10_000),
])("the tool rule %p is refused", (rule) => {
  expect(ruleOf(rule)).toBeUndefined();
});

test("no tool rule that passes is more than one where the CLI splits it", () => {
  const pieces = fc.constantFrom(
    "Read",
    "Bash",
    "(",
    ")",
    ",",
    " ",
    "x",
    "*",
    "-",
    "\\",
    '"',
    "mcp__",
  );
  const some = fc.array(pieces, { maxLength: 12 }).map((parts) => parts.join(""));
  const text = fc.oneof(
    some,
    some.map((inner) => `Read(${inner})`),
  );
  let passed = 0;
  fc.assert(
    fc.property(text, (rule) => {
      const result = ruleOf(rule);
      if (result === undefined) return;
      passed += 1;
      // As the CLI does it: parentheses do not nest there, and blanks split as commas do.
      let inside = false;
      for (const character of result) {
        if (character === "(") inside = true;
        if (character === ")") inside = false;
        if (!inside) expect(character).not.toMatch(/[ ,]/);
      }
      expect(inside).toBe(false);
      expect(result).not.toStartWith("-");
    }),
    { numRuns: 20_000 },
  );
  expect(passed).toBeGreaterThan(100);
});

test.each([
  "opus",
  "claude-sonnet-4-5",
  "sonnet[1m]",
  "us.anthropic.claude:0",
  "a/b@c_d",
  "x".repeat(128),
])("the model %s passes", (model) => {
  expect(accepts({ model })).toBe(true);
  expect(accepts({ fallback_model: model })).toBe(true);
});

test.each([
  "",
  "-opus",
  "--settings={}",
  "a b",
  "a\nb",
  "a;b",
  "$(x)",
  "opus,",
  "ö",
  "x".repeat(129),
  ".a",
])("the model %p is refused", (model) => {
  expect(accepts({ model })).toBe(false);
  expect(accepts({ fallback_model: model })).toBe(false);
});

test("several fallback models may stand with commas between, but only there", () => {
  expect(accepts({ fallback_model: "opus,sonnet" })).toBe(true);
  expect(accepts({ model: "opus,sonnet" })).toBe(false);
  expect(accepts({ fallback_model: "opus,-sonnet" })).toBe(false);
});

test("every option may be null, which is the same as leaving it out", () => {
  const { output } = v.safeParse(agentOptions, {});
  expect(output).toEqual({});
  for (const key of [
    "model",
    "permission_mode",
    "dangerously_skip_permissions",
    "allowed_tools",
    "disallowed_tools",
    "mcp_config",
    "strict_mcp_config",
    "append_system_prompt",
    "fallback_model",
    "add_dirs",
    "max_turns",
    "max_budget_usd",
  ])
    expect(accepts({ [key]: null })).toBe(true);
});

test.each<[string, unknown]>([
  ["an array", []],
  ["a string", "{}"],
  ["settings", { settings: "{}" }],
  ["hooks", { hooks: {} }],
  ["env", { env: { A: "b" } }],
  ["agents", { agents: {} }],
  ["plugin_dir", { plugin_dir: "/x" }],
  ["a permission mode that there is not", { permission_mode: "yolo" }],
  ["a rule too many", { allowed_tools: Array(201).fill("Read") }],
  ["rules that are one text", { allowed_tools: "Read" }],
  ["a relative mcp_config", { mcp_config: "mcp.json" }],
  ["an mcp_config that is an array", { mcp_config: [] }],
  ["an mcp_config with a NUL", { mcp_config: "/a\0b" }],
  ["an mcp_config that is too large for argv", { mcp_config: { a: "x".repeat(121 * 1024) } }],
  ["a system prompt that is too large for argv", { append_system_prompt: "ä".repeat(61 * 1024) }],
  ["a system prompt with a NUL", { append_system_prompt: "a\0b" }],
  ["a relative add_dirs", { add_dirs: ["src"] }],
  ["max_turns of 0", { max_turns: 0 }],
  ["max_turns that is no whole number", { max_turns: 1.5 }],
  ["a budget of 0", { max_budget_usd: 0 }],
  ["a budget below 0", { max_budget_usd: -1 }],
])("options with %s are refused", (_, options) => {
  expect(accepts(options)).toBe(false);
});

test.each([
  ["image/png", "aGk=", true],
  ["image/webp", "aGk=", true],
  ["image/svg+xml", "aGk=", false],
  ["image/png", "", false],
  ["image/png", "not base64!", false],
])("an image of %s with %p: %p", (media_type, data, good) => {
  expect(v.safeParse(image, { media_type, data }).success).toBe(good);
});
