import { describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { AgentLog } from "./support/agent-log.ts";
import { scratch, testApp } from "./support/app.ts";
import type { Client } from "./support/client.ts";

const always = [
  "-p",
  "--output-format=stream-json",
  "--verbose",
  "--input-format=stream-json",
  "--permission-prompt-tool=stdio",
  "--include-partial-messages",
];

/** What keeps the agent's file tools out of a folder. */
function closed(folder: string): string[] {
  return ["Read", "Edit"].flatMap((tool) => [
    `--disallowed-tools=${tool}(/${folder})`,
    `--disallowed-tools=${tool}(/${folder}/**)`,
  ]);
}

describe("what the agent is started with", () => {
  test("is the live protocol, the session and the mode; an untrusted directory counts for nothing", async () => {
    await using app = await testApp();
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const { session_id, trusted } = await client.run(project_id, "say:one");
    expect(trusted).toBe(false);
    const { argv, env } = new AgentLog(app.home).last();
    expect(argv).toEqual([
      ...always,
      `--session-id=${session_id}`,
      "--permission-mode=default",
      ...closed(app.dataDir),
      ...closed(join(app.home, "config")),
      "--setting-sources=user",
      '--settings={"permissions":{"ask":["Bash(git *)","Bash(git:*)"]}}',
      "--strict-mcp-config",
    ]);
    expect(env).toContain("CLAUDE_CODE_DISABLE_GIT_INSTRUCTIONS");
    expect(env.filter((name) => name.startsWith("PA_"))).toEqual([]);
  });

  test("has every option as one element of its own", async () => {
    const settings = { PA_CLAUDE_ALLOW_BYPASS: "true", PA_CLAUDE_ALLOW_MCP_CONFIG: "true" };
    await using app = await testApp({ ...settings, IS_SANDBOX: "1" });
    const client = await app.client();
    const extra = await app.directory("project/extra dir");
    const project_id = await client.create(await app.directory("project"), { trusted: true });
    const options = {
      model: "claude-opus-4-8[1m]",
      permission_mode: "bypassPermissions",
      dangerously_skip_permissions: true,
      allowed_tools: ["read", "Bash(git log:*, git diff)"],
      disallowed_tools: ["WebFetch"],
      mcp_config: { mcpServers: {} },
      strict_mcp_config: true,
      append_system_prompt: "--settings={}\nBe brief",
      fallback_model: "sonnet,haiku",
      add_dirs: [extra],
      max_turns: 7,
      max_budget_usd: 1.5,
    };
    const { session_id } = await client.run(project_id, "say:one", { options });
    expect(new AgentLog(app.home).last().argv).toEqual([
      ...always,
      `--session-id=${session_id}`,
      "--permission-mode=bypassPermissions",
      "--dangerously-skip-permissions",
      "--model=claude-opus-4-8[1m]",
      "--fallback-model=sonnet,haiku",
      "--append-system-prompt=--settings={}\nBe brief",
      "--allowed-tools=Read",
      "--allowed-tools=Bash(git log:*, git diff)",
      "--disallowed-tools=WebFetch",
      ...closed(app.dataDir),
      ...closed(join(app.home, "config")),
      `--add-dir=${extra}`,
      `--mcp-config={"mcpServers":{}}`,
      "--max-turns=7",
      "--max-budget-usd=1.5",
      "--strict-mcp-config",
    ]);
  });

  test("never takes an option over from the run before", async () => {
    await using app = await testApp({ PA_CLAUDE_MODEL: "haiku" });
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const options = { model: "opus", permission_mode: "plan", allowed_tools: ["Read"] };
    await client.run(project_id, "say:one", { options });
    await client.run(project_id, "say:two", { options: { model: null } });
    const { argv } = new AgentLog(app.home).last();
    expect(argv).toContain("--model=haiku");
    expect(argv).toContain("--permission-mode=default");
    expect(argv.join(" ")).not.toContain("--allowed-tools");
  });

  test("may be a directory that its owner trusts: its own settings take effect", async () => {
    await using app = await testApp();
    const client = await app.client();
    const project_id = await client.create(await app.directory(), { trusted: true });
    const { trusted } = await client.run(project_id, "say:one");
    expect(trusted).toBe(true);
    const { argv, env } = new AgentLog(app.home).last();
    expect(argv).toContain("--permission-mode=default");
    expect(argv).not.toContain("--setting-sources=user");
    expect(argv).not.toContain("--strict-mcp-config");
    expect(env).not.toContain("CLAUDE_CODE_DISABLE_GIT_INSTRUCTIONS");
  });

  test("is never a prompt: that goes to stdin, whatever it looks like", async () => {
    await using app = await testApp();
    const agents = new AgentLog(app.home);
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const prompts = ["--help", '--settings={"hooks":{}}', "grüße 👋\u0000\n\u2028 end"];
    for (const prompt of prompts)
      expect(await client.run(project_id, prompt)).toMatchObject({ state: "IDLE" });
    expect(agents.prompts()).toEqual(prompts.map((text) => [{ type: "text", text }]));
    const argv = agents.starts().flatMap((start) => start.argv);
    expect(argv.filter((element) => prompts.some((prompt) => element.includes(prompt)))).toEqual(
      [],
    );
  });

  test("is given images on stdin, behind the prompt", async () => {
    await using app = await testApp();
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const images = [
      { media_type: "image/png", data: "iVBORw0KGgo=" },
      { media_type: "image/webp", data: "UklGRg==" },
    ];
    await client.run(project_id, "what is this?", { images });
    expect(client.events(project_id)[0]?.data).toMatchObject({ images: 2 });
    expect(new AgentLog(app.home).prompts()).toEqual([
      [
        { type: "text", text: "what is this?" },
        ...images.map((source) => ({ type: "image", source: { type: "base64", ...source } })),
      ],
    ]);
  });
});

describe("what is refused changes nothing", () => {
  const consent = [
    { dangerously_skip_permissions: true },
    { permission_mode: "bypassPermissions" },
    { permission_mode: "auto" },
    { mcp_config: { mcpServers: {} } },
    { mcp_config: "/etc/passwd" },
  ];
  for (const options of consent)
    test(`${JSON.stringify(options)} needs the server's own consent`, async () => {
      await using app = await testApp();
      const client = await app.client();
      const project_id = await client.create(await app.directory());
      const refused = await client.ask("execute", { project_id, data: { prompt: "hi", options } });
      expect(refused).toMatchObject({ type: "error", data: { code: "FORBIDDEN" } });
      await expectUntouched(client, project_id);
    });

  test("a program that is missing is CLAUDE_NOT_FOUND, and how to install it", async () => {
    await using app = await testApp({ PA_CLAUDE_BINARY: "/no/such/claude" });
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const refused = await client.ask("execute", { project_id, data: { prompt: "hi" } });
    expect(refused).toMatchObject({ type: "error", data: { code: "CLAUDE_NOT_FOUND" } });
    expect(JSON.stringify(refused)).toContain("npm install -g @anthropic-ai/claude-code");
    await expectUntouched(client, project_id);
  });

  test("a program that others could replace is CLAUDE_NOT_FOUND, and what to do about it", async () => {
    await using stack = new AsyncDisposableStack();
    const home = await scratch(stack);
    const tools = join(home, "tools");
    mkdirSync(tools);
    symlinkSync(join(import.meta.dir, "support", "fake-claude.ts"), join(tools, "claude"));
    chmodSync(tools, 0o777);
    const settings = { PA_CLAUDE_BINARY: "claude", PATH: tools, SHELL: "/bin/false" };
    const app = stack.use(await testApp(settings, { home }));
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const refused = await client.ask("execute", { project_id, data: { prompt: "hi" } });
    expect(refused).toMatchObject({ type: "error", data: { code: "CLAUDE_NOT_FOUND" } });
    expect(JSON.stringify(refused)).toContain("in a folder that others may write to");
    await expectUntouched(client, project_id);
  });

  test("a program that is too old is CLAUDE_NOT_FOUND, and how to update it", async () => {
    await using app = await testApp({ FAKE_CLAUDE_VERSION: "1.0.100" });
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    // Health waits for the version; without it a first prompt would be given the benefit of doubt.
    const { data: health } = await client.expect("health_status", "health");
    expect(health).toMatchObject({ status: "degraded", claude: { version: "1.0.100" } });
    const refused = await client.ask("execute", { project_id, data: { prompt: "hi" } });
    expect(refused).toMatchObject({ type: "error", data: { code: "CLAUDE_NOT_FOUND" } });
    expect(JSON.stringify(refused)).toContain("version 1.0.100 is too old");
    await expectUntouched(client, project_id);
  });

  test("a directory that is gone is INVALID_PATH, and the project is not available", async () => {
    await using app = await testApp();
    const client = await app.client();
    const directory = await app.directory();
    const project_id = await client.create(directory);
    await Bun.$`rmdir ${directory}`;
    const refused = await client.ask("execute", { project_id, data: { prompt: "hi" } });
    expect(refused).toMatchObject({ type: "error", data: { code: "INVALID_PATH" } });
    await expectUntouched(client, project_id);
    const isAvailable = async () => {
      const { data } = await client.expect("project_list_response", "project_list");
      return data.projects[0]?.available;
    };
    // It is looked for every two seconds, not at every question.
    while (await isAvailable()) await Bun.sleep(100);
  });

  test("more prompts than a project may have in a minute are RATE_LIMITED", async () => {
    await using app = await testApp({ PA_LIMITS_EXECUTE_RATE: "2" });
    const client = await app.client();
    const project_id = await client.create(await app.directory());
    const other = await client.create(await app.directory());
    await client.run(project_id, "say:one");
    const refused = await client.ask("execute", { project_id, data: { prompt: "hi" } });
    expect(refused).toMatchObject({ type: "error", data: { code: "RATE_LIMITED" } });
    expect(JSON.stringify(refused)).toContain('"retry_after_ms":');
    expect(await client.run(other, "say:another project")).toMatchObject({ state: "IDLE" });
    expect(new AgentLog(app.home).prompts()).toHaveLength(2);
  });
});

async function expectUntouched(client: Client, project_id: string): Promise<void> {
  const { data } = await client.expect("project_list_response", "project_list");
  expect(data.projects.find(({ id }) => id === project_id)).toMatchObject({
    state: "IDLE",
    last_seq: 0,
    error: null,
    usage: { runs: 0 },
  });
}
