import { expect, setDefaultTimeout, test } from "bun:test";
import { AgentLog } from "./support/agent-log.ts";
import { testApp } from "./support/app.ts";

setDefaultTimeout(120_000);

const hooks = `{"hooks":{"SessionStart":[{"hooks":[{"type":"command","command":"touch /tmp/x"}]}]}}`;
/** What would be another argument, end a list, reach a shell or leave a file name. */
const hostile = [
  `--settings=${hooks}`,
  `--settings ${hooks}`,
  `\n--settings=${hooks}`,
  `x\0--settings=${hooks}`,
  "-p",
  "--",
  "-",
  "--print",
  "--dangerously-skip-permissions",
  "--allow-dangerously-skip-permissions",
  "--permission-mode=bypassPermissions",
  "--allowed-tools=Bash",
  "--allowedTools=Bash",
  "--mcp-config=/tmp/x.json",
  "--plugin-dir=/tmp",
  "--agents={}",
  "--add-dir=/",
  "--resume=x",
  "=--settings=x",
  " --settings=x",
  "\t--settings=x",
  "'--settings=x",
  '"--settings=x',
  "a --settings=x",
  "a\r\n--settings=x",
  "Read,--settings=x",
  "Read --settings=x",
  "Read(x),Bash",
  "Read(x) Bash",
  "Read(x)Bash",
  "Read(x))",
  "Read((x)",
  "Read(x\n)",
  "Read)",
  "Bash(",
  "Bash(rm -rf /),Write",
  "opus --settings=x",
  "opus\n--settings=x",
  "opus,--settings=x",
  "../../etc/passwd",
  "/etc/passwd",
  "/",
  "~",
  "~/.ssh",
  "$(touch /tmp/x)",
  "`touch /tmp/x`",
  "; touch /tmp/x",
  "| touch /tmp/x",
  "&& touch /tmp/x",
  "${HOME}",
  "%2d%2dsettings=x",
  "\u2014settings=x",
  "\u202e--settings",
  "\u0000",
  "\ud800",
  "@/etc/passwd",
  "!touch /tmp/x",
  "/config",
  "{}",
  "[]",
  hooks,
  '{"mcpServers":{"x":{"command":"touch","args":["/tmp/x"]}}}',
  "null",
  "0",
  "",
  "x".repeat(600),
];

/** Every place of `execute` that takes a client's text. */
const places: Record<string, (text: string) => object> = {
  prompt: (text) => ({ prompt: text }),
  model: (text) => ({ options: { model: text } }),
  permission_mode: (text) => ({ options: { permission_mode: text } }),
  allowed_tools: (text) => ({ options: { allowed_tools: [text] } }),
  disallowed_tools: (text) => ({ options: { disallowed_tools: ["Read", text] } }),
  append_system_prompt: (text) => ({ options: { append_system_prompt: text } }),
  fallback_model: (text) => ({ options: { fallback_model: text } }),
  add_dirs: (text) => ({ options: { add_dirs: [text] } }),
  "mcp_config as a path": (text) => ({ options: { mcp_config: text } }),
  "mcp_config as an object": (text) => ({
    options: { mcp_config: { mcpServers: { [text]: text } } },
  }),
  execution_id: (text) => ({ execution_id: text }),
  "an image's data": (text) => ({ images: [{ media_type: "image/png", data: text }] }),
  "an image's type": (text) => ({ images: [{ media_type: text, data: "AAAA" }] }),
};

const limits = {
  PA_LIMITS_MESSAGE_RATE: "100000",
  PA_LIMITS_EXECUTE_RATE: "100000",
  PA_CLAUDE_ALLOW_MCP_CONFIG: "true",
  PA_CLAUDE_IDLE_TIMEOUT: "0s",
};

/** What a plain run is started with that has no value; each may be there once. */
const bare = new Set([
  "-p",
  "--verbose",
  "--include-partial-messages",
  "--strict-mcp-config",
  '--settings={"permissions":{"ask":["Bash(git *)","Bash(git:*)"]}}',
]);

/** Elements of a command line that are neither a flag of ours nor behind one. */
function foreign(argv: readonly string[]): string[] {
  return argv.filter((element, at) => {
    if (/^--[a-z-]+=/.test(element) && !bare.has(element))
      return /^--(settings|plugin-dir|agents|print)\b/.test(element);
    return !bare.has(element) || argv.indexOf(element) !== at;
  });
}

test("the checker sees a client's text that stands by itself", () => {
  expect(hostile.length).toBeGreaterThanOrEqual(60);
  for (const text of ["--settings=x", "-p", "x", "opus"])
    expect(foreign(["-p", "--verbose", "--model=opus", text])).toEqual([text]);
  expect(foreign(["-p", "--verbose", "--model=--settings=x"])).toEqual([]);
});

test.each(Object.entries(places))(
  "hostile text as %s is refused, or stands behind its flag, or goes to stdin",
  async (_, make) => {
    await using app = await testApp(limits);
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const log = new AgentLog(app.home);
    for (const text of hostile) {
      const started = log.starts().length;
      const reply = await client.ask("execute", {
        project_id,
        data: { prompt: "say:done", ...make(text) },
      });
      if (reply.type === "error") {
        expect(reply.data).toMatchObject({ code: expect.stringMatching(/^(INVALID|FORBIDDEN)/) });
        expect(log.starts()).toHaveLength(started);
        continue;
      }
      if (reply.type !== "project_state") throw new Error(`Expected a state: ${reply.type}`);
      await client.settled(project_id, reply.data.last_seq);
      for (const { argv } of log.starts().slice(started))
        expect({ text, foreign: foreign(argv) }).toEqual({ text, foreign: [] });
    }
  },
);

test("hostile text in agent_set and session_resume is refused before anything runs", async () => {
  await using app = await testApp(limits);
  const client = await app.client();
  const project_id = await client.create(await app.directory());
  for (const text of hostile.filter((value) => value !== "0" && value !== "null")) {
    const data = { session_id: text };
    expect(await client.ask("session_resume", { project_id, data })).toMatchObject({
      type: "error",
      data: { code: "INVALID_MESSAGE" },
    });
    const mode = { permission_mode: text };
    expect(await client.ask("agent_set", { project_id, data: mode })).toMatchObject({
      type: "error",
    });
  }
  expect(new AgentLog(app.home).starts()).toEqual([]);
});
