import { describe, expect, test } from "bun:test";
import { agentArguments } from "../src/adapters/claude/arguments.ts";
import type { AgentRequest } from "../src/core/ports.ts";

const id = "5e1d9f1e-0f43-4d2c-8b5c-0a3f5a4f9c11";
const plain: AgentRequest = {
  projectId: "p",
  cwd: "/project",
  trusted: true,
  permissionMode: "default",
  model: null,
  options: {},
  session: { id, resume: false, fork: false },
};
const always = [
  "-p",
  "--output-format=stream-json",
  "--verbose",
  "--input-format=stream-json",
  "--permission-prompt-tool=stdio",
  "--include-partial-messages",
];

describe("agentArguments", () => {
  test("of a plain request are the live protocol, the session and the permission mode", () => {
    expect(agentArguments(plain, [])).toEqual([
      ...always,
      `--session-id=${id}`,
      "--permission-mode=default",
    ]);
  });

  test("resume a session by its id", () => {
    const argv = agentArguments({ ...plain, session: { id, resume: true, fork: false } }, []);
    expect(argv).toContain(`--resume=${id}`);
    expect(argv.join(" ")).not.toContain("--session-id");
  });

  test("resume a copy of a session where it is to be forked", () => {
    const argv = agentArguments({ ...plain, session: { id, resume: true, fork: true } }, []);
    expect(argv).toContain(`--resume=${id}`);
    expect(argv).toContain("--fork-session");
  });

  test("of an untrusted project leave its settings and MCP servers out, once", () => {
    const options = { strict_mcp_config: true };
    const argv = agentArguments({ ...plain, trusted: false, options }, []);
    expect(argv.slice(-3)).toEqual([
      "--setting-sources=user",
      '--settings={"permissions":{"ask":["Bash(git *)","Bash(git:*)"]}}',
      "--strict-mcp-config",
    ]);
    expect(argv.filter((element) => element === "--strict-mcp-config")).toHaveLength(1);
  });

  test("carry every option as one element, and none that is null", () => {
    const options = {
      dangerously_skip_permissions: true,
      allowed_tools: ["Read", "Bash(git log:*, git diff:*)"],
      disallowed_tools: ["WebFetch"],
      mcp_config: { mcpServers: { a: { command: "a b" } } },
      append_system_prompt: "Be brief\nand kind",
      fallback_model: "sonnet",
      add_dirs: ["/one", "/two words"],
      max_turns: 3,
      max_budget_usd: 0.5,
    };
    const request: AgentRequest = { ...plain, model: "opus", permissionMode: "plan", options };
    expect(agentArguments(request, [])).toEqual([
      ...always,
      `--session-id=${id}`,
      "--permission-mode=plan",
      "--dangerously-skip-permissions",
      "--model=opus",
      "--fallback-model=sonnet",
      "--append-system-prompt=Be brief\nand kind",
      "--allowed-tools=Read",
      "--allowed-tools=Bash(git log:*, git diff:*)",
      "--disallowed-tools=WebFetch",
      "--add-dir=/one",
      "--add-dir=/two words",
      `--mcp-config={"mcpServers":{"a":{"command":"a b"}}}`,
      "--max-turns=3",
      "--max-budget-usd=0.5",
    ]);
    const nulls = Object.fromEntries(Object.keys(options).map((key) => [key, null]));
    expect(agentArguments({ ...plain, options: nulls }, [])).toEqual(agentArguments(plain, []));
  });

  test("close the server's own directories to the file tools, whatever they are called", () => {
    const argv = agentArguments(plain, ["/data/pocket agent", "/a(b) c,d*[e]\\{!}/"]);
    expect(argv.slice(-8)).toEqual([
      "--disallowed-tools=Read(//data/pocket agent)",
      "--disallowed-tools=Read(//data/pocket agent/**)",
      "--disallowed-tools=Edit(//data/pocket agent)",
      "--disallowed-tools=Edit(//data/pocket agent/**)",
      "--disallowed-tools=Read(//a?b? c?d??e?????)",
      "--disallowed-tools=Read(//a?b? c?d??e?????/**)",
      "--disallowed-tools=Edit(//a?b? c?d??e?????)",
      "--disallowed-tools=Edit(//a?b? c?d??e?????/**)",
    ]);
  });

  test("never begin an element with a client's text", () => {
    const hostile = [
      `--settings={"hooks":{}}`,
      "-p",
      "--",
      "--dangerously-skip-permissions",
      "=--settings=x",
      "\n--settings=x",
      "",
      " ",
      "a b --settings=x",
      "$(touch x)",
      "`id`",
      "'; touch x; '",
      "\u0000--settings",
    ];
    for (const text of hostile) {
      const argv = agentArguments(
        {
          ...plain,
          model: text,
          session: { id: text, resume: true, fork: false },
          options: {
            allowed_tools: [text],
            disallowed_tools: [text],
            mcp_config: text,
            append_system_prompt: text,
            fallback_model: text,
            add_dirs: [text],
          },
        },
        [],
      );
      const carriers = argv.filter((element) => !always.includes(element));
      expect(carriers).toHaveLength(9);
      for (const element of carriers) expect(element).toMatch(/^--[a-z-]+=/);
      expect(carriers.filter((element) => element.endsWith(`=${text}`))).toHaveLength(8);
    }
  });
});
