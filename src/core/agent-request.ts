import type { AgentOptions, PermissionMode } from "../contract/agent-options.ts";
import { Fault } from "../contract/errors.ts";
import type { Config } from "../contract/options.ts";
import type { Directories } from "./ports.ts";

type Rules = Pick<
  Config,
  | "claudeAllowBypass"
  | "claudeAllowMcpConfig"
  | "claudeAllowedTools"
  | "claudeModel"
  | "claudePermissionMode"
>;

/** Options of one run after defaults: what the agent is started with. */
export interface ResolvedOptions {
  readonly permissionMode: PermissionMode;
  readonly model: string | null;
  readonly options: AgentOptions;
}

/** What the machine says about directories, and what people have said. */
interface Surroundings {
  readonly directories: Directories;
  /** Whether the skills and agents that a directory brings along may take effect. */
  readonly trusts: (path: string) => boolean;
}

type Place = { readonly path: string; readonly trusted: boolean };

/**
 * Fills in what the configuration says and checks what only the machine can tell. Options left out
 * never take the value of an earlier run. Throws FORBIDDEN or INVALID_MESSAGE.
 */
export function resolveOptions(
  asked: AgentOptions,
  project: Place,
  around: Surroundings & { readonly config: Rules },
): ResolvedOptions {
  const { config } = around;
  const permissionMode = asked.permission_mode ?? config.claudePermissionMode;
  const model = asked.model ?? config.claudeModel;
  if (!config.claudeAllowBypass) refuseBypass(asked);
  if (asked.mcp_config != null) checkMcpConfig(asked.mcp_config, project.path, config);
  const add_dirs = asked.add_dirs?.map((path, index) => {
    try {
      return addedDirectory(path, project, around);
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      throw new Fault("INVALID_MESSAGE", error.message, { path: `options.add_dirs.${index}` });
    }
  });
  const allowed_tools = asked.allowed_tools ?? config.claudeAllowedTools;
  // Mode and model can change while it runs, so they stand outside of what it was started with.
  const rest = { ...asked, permission_mode: undefined, model: undefined };
  return { permissionMode, model, options: { ...rest, add_dirs, allowed_tools } };
}

/**
 * The real path of a directory that a run may work in besides its project's. The CLI takes skills and
 * agents from it, which run commands, unless the project is not trusted. Throws INVALID_PATH.
 */
export function addedDirectory(
  given: string,
  { trusted }: Place,
  { directories, trusts }: Surroundings,
): string {
  const { path } = directories.resolve(given);
  if (!trusted || trusts(path)) return path;
  throw new Fault(
    "INVALID_PATH",
    `Cannot add ${JSON.stringify(given)} to a trusted project: it is not trusted itself, and its skills and agents could run commands; make it a project and trust it, or run untrusted`,
  );
}

/** Modes in which nobody is asked need the server's own consent. */
export function refuseBypass(
  asked: Pick<AgentOptions, "permission_mode" | "dangerously_skip_permissions">,
): void {
  const { permission_mode: mode, dangerously_skip_permissions: skip } = asked;
  const name = skip
    ? "dangerously_skip_permissions"
    : mode === "bypassPermissions" || mode === "auto"
      ? mode
      : undefined;
  if (name)
    throw new Fault(
      "FORBIDDEN",
      `Cannot run with ${name}: the server's configuration does not allow it (claude.allow_bypass)`,
    );
}

function checkMcpConfig(
  config: string | Readonly<Record<string, unknown>>,
  projectPath: string,
  rules: Rules,
): void {
  if (!rules.claudeAllowMcpConfig)
    throw new Fault(
      "FORBIDDEN",
      "Cannot run with mcp_config: the server's configuration does not allow it (claude.allow_mcp_config)",
    );
  if (typeof config !== "string") return;
  if (!config.startsWith(`${projectPath}/`) || config.split("/").includes(".."))
    throw new Fault(
      "INVALID_MESSAGE",
      `Cannot use the MCP configuration ${JSON.stringify(config)}: it does not lie inside the project`,
      { path: "options.mcp_config" },
    );
}
