import type { AgentRequest } from "../../core/ports.ts";

/** Characters with a meaning in a tool rule or in the path pattern inside of one. */
const special = /[()[\]{}*?!,\\\p{Cc}]/gu;

/**
 * The CLI runs git commands that only read without asking, and those run what a repository's own
 * configuration names: filters, text converters, external differences, under names of its choice.
 */
const askedForGit = JSON.stringify({ permissions: { ask: ["Bash(git *)", "Bash(git:*)"] } });

/**
 * What the CLI is called with, after its own name. Every value stands behind its flag in the same
 * element, because an element of its own could be read as another flag; the prompt goes to stdin.
 */
export function agentArguments(request: AgentRequest, closedDirs: readonly string[]): string[] {
  const { options, session } = request;
  const strict = !request.trusted || options.strict_mcp_config === true;
  return [
    "-p",
    "--output-format=stream-json",
    "--verbose",
    "--input-format=stream-json",
    "--permission-prompt-tool=stdio",
    "--include-partial-messages",
    session.resume ? `--resume=${session.id}` : `--session-id=${session.id}`,
    ...(session.fork ? ["--fork-session"] : []),
    // Always, so that the settings of the project cannot choose it.
    `--permission-mode=${request.permissionMode}`,
    ...(options.dangerously_skip_permissions === true ? ["--dangerously-skip-permissions"] : []),
    ...flag("model", request.model),
    ...flag("fallback-model", options.fallback_model),
    ...flag("append-system-prompt", options.append_system_prompt),
    ...flags("allowed-tools", options.allowed_tools),
    ...flags("disallowed-tools", options.disallowed_tools),
    ...flags("disallowed-tools", closedDirs.flatMap(closedTo)),
    ...flags("add-dir", options.add_dirs),
    ...flag("mcp-config", mcpConfig(options.mcp_config)),
    ...flag("max-turns", options.max_turns),
    ...flag("max-budget-usd", options.max_budget_usd),
    ...(request.trusted ? [] : ["--setting-sources=user", `--settings=${askedForGit}`]),
    ...(strict ? ["--strict-mcp-config"] : []),
  ];
}

function flag(name: string, value: string | number | null | undefined): string[] {
  return value === null || value === undefined ? [] : [`--${name}=${value}`];
}

function flags(name: string, values: readonly string[] | null | undefined): string[] {
  return (values ?? []).map((value) => `--${name}=${value}`);
}

/**
 * Rules that keep the agent's file tools out of a directory. A special character in its path is
 * written as the one wildcard for any character: a rule may close too much, never too little.
 */
function closedTo(directory: string): string[] {
  const path = directory.replace(/^\/+|\/+$/g, "").replace(special, "?");
  return ["Read", "Edit"].flatMap((tool) => [`${tool}(//${path})`, `${tool}(//${path}/**)`]);
}

function mcpConfig(config: AgentRequest["options"]["mcp_config"]): string | null | undefined {
  return typeof config === "object" && config !== null ? JSON.stringify(config) : config;
}
