import { existsSync } from "node:fs";
import type { Arguments } from "./arguments.ts";
import { isFields, type Fields } from "./record.ts";

/** What `--version` says, before the name of the product. */
export function version(): string {
  return process.env["FAKE_CLAUDE_VERSION"] ?? "2.1.197";
}

/** The fields of `system/init` that say what the CLI is and offers. */
export function introduction(given: Arguments): Fields {
  return {
    cwd: process.cwd(),
    tools: ["Task", "AskUserQuestion", "Bash", "Edit", "ExitPlanMode", "Read", "Write"],
    mcp_servers: mcpServers(given),
    slash_commands: ["clear", "compact", "context", "init", "review", "usage"],
    claude_code_version: version(),
    output_style: "default",
    agents: ["claude", "Explore", "general-purpose", "Plan"],
    skills: [],
    plugins: [],
    analytics_disabled: true,
    product_feedback_disabled: true,
    fast_mode_state: "off",
  };
}

/** The answer to `initialize`. */
export function initialization(): Fields {
  return {
    commands: [{ name: "compact", description: "Compact the conversation", argumentHint: "" }],
    agents: [{ name: "general-purpose", description: "For anything" }],
    output_style: "default",
    available_output_styles: ["default"],
    models: [{ value: "default", displayName: "Default", description: "Recommended" }],
    account: {},
    pid: process.pid,
  };
}

/** The MCP servers named on the command line, as if all had started. */
export function mcpServers(given: Arguments): readonly Fields[] {
  return given.list("--mcp-config").flatMap((config) => {
    if (existsSync(config)) return [];
    const value: unknown = JSON.parse(config);
    const servers = isFields(value) ? value["mcpServers"] : undefined;
    return Object.keys(isFields(servers) ? servers : {}).map((name) => ({
      name,
      status: "connected",
    }));
  });
}
