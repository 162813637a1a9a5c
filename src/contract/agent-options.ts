/**
 * What a client may ask of the agent for one run. Every value ends up as `--flag=value` in one
 * argv element, so each is held to a shape that the CLI cannot read as something else.
 */
import * as v from "valibot";

export const permissionModes = [
  "default",
  "acceptEdits",
  "plan",
  "bypassPermissions",
  "dontAsk",
  "auto",
] as const;
export type PermissionMode = (typeof permissionModes)[number];

const modelName = /^[A-Za-z0-9][A-Za-z0-9._:[\]@/-]{0,127}$/;
const toolName = /^[A-Za-z_][A-Za-z0-9_*-]*$/;
/**
 * Where the CLI would begin another rule: at a comma or blank outside of parentheses, which do not
 * nest there. The first `)` ends what any number of `(` have begun.
 */
const anotherRule = /\)[^(]*[ ,]/;
/** Names that people write and that the CLI, case-sensitive, would match to nothing. */
const toolAliases: ReadonlyMap<string, string> = new Map([
  ["read", "Read"],
  ["write", "Write"],
  ["edit", "Edit"],
  ["run", "Bash"],
  ["bash", "Bash"],
]);
/** Linux limits one argv element to 128 KiB. */
const argumentBytes = 120 * 1024;

const fitsArgument = v.check<string, string>(
  (text) => !text.includes("\0") && new TextEncoder().encode(text).length <= argumentBytes,
  `Expected at most ${argumentBytes} bytes and no NUL`,
);

/** `Read`, `Bash(git *)`, `mcp__server__*`. */
export const toolRule = v.pipe(
  v.string(),
  v.maxLength(700),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const { name, rest } = splitRule(dataset.value);
    const known = toolAliases.get(name) ?? name;
    if (!toolName.test(name) || !isOneGroup(rest)) {
      addIssue({ message: "Expected a tool rule such as Read or Bash(git *)" });
      return NEVER;
    }
    if (/^[a-z]/.test(known) && !known.startsWith("mcp__")) {
      addIssue({
        message: `Expected a tool name, which is case-sensitive: ${quote(name)} is none`,
      });
      return NEVER;
    }
    return known + rest;
  }),
);

export const model = v.pipe(v.string(), v.regex(modelName, "Expected the name of a model"));
const fallbackModel = v.pipe(
  v.string(),
  v.check(
    (text) => text.split(",").every((name) => modelName.test(name)),
    "Expected the name of a model, or several with commas between",
  ),
);

/** Null means the same as leaving the key out. */
const maybe = <S extends v.GenericSchema>(schema: S) => v.nullish(schema);

/** An array without items has no unknown keys either, and would pass for an object. */
export const noArray = v.custom<object>((input) => !Array.isArray(input), "Expected an object");

const fields = v.strictObject({
  model: maybe(model),
  permission_mode: maybe(v.picklist(permissionModes)),
  dangerously_skip_permissions: maybe(v.boolean()),
  allowed_tools: maybe(v.pipe(v.array(toolRule), v.maxLength(200))),
  disallowed_tools: maybe(v.pipe(v.array(toolRule), v.maxLength(200))),
  mcp_config: maybe(
    v.union([
      v.pipe(v.string(), v.startsWith("/"), v.maxLength(4096), fitsArgument),
      v.pipe(
        noArray,
        v.record(v.string(), v.unknown()),
        v.check(
          (config) => new TextEncoder().encode(JSON.stringify(config)).length <= argumentBytes,
          `Expected at most ${argumentBytes} bytes of JSON`,
        ),
      ),
    ]),
  ),
  strict_mcp_config: maybe(v.boolean()),
  append_system_prompt: maybe(v.pipe(v.string(), fitsArgument)),
  fallback_model: maybe(fallbackModel),
  add_dirs: maybe(v.pipe(v.array(v.pipe(v.string(), v.startsWith("/"))), v.maxLength(50))),
  max_turns: maybe(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(100_000))),
  max_budget_usd: maybe(
    v.pipe(
      v.number(),
      v.finite(),
      v.check((usd) => usd > 0, "Expected more than 0"),
    ),
  ),
});
export const agentOptions = v.pipe(noArray, fields);
export type AgentOptions = v.InferOutput<typeof agentOptions>;

export const image = v.strictObject({
  media_type: v.picklist(["image/png", "image/jpeg", "image/gif", "image/webp"]),
  data: v.pipe(v.string(), v.nonEmpty(), v.base64("Expected base64")),
});
export type Image = v.InferOutput<typeof image>;

function splitRule(rule: string): { name: string; rest: string } {
  const at = rule.indexOf("(");
  return at === -1 ? { name: rule, rest: "" } : { name: rule.slice(0, at), rest: rule.slice(at) };
}

/** Nothing, or one parenthesised part whose first balanced `)` is the last character, also to the CLI. */
function isOneGroup(rest: string): boolean {
  if (rest === "") return true;
  if (rest.length > 514 || /\p{Cc}/u.test(rest) || anotherRule.test(rest)) return false;
  let depth = 0;
  for (let at = 0; at < rest.length; at += 1) {
    if (rest[at] === "(") depth += 1;
    if (rest[at] === ")") depth -= 1;
    if (depth === 0) return at === rest.length - 1;
  }
  return false;
}

const quote = (text: string): string => JSON.stringify(text);
