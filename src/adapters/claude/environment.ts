export type Environment = Readonly<Record<string, string | undefined>>;

/** Carried by every process of one run, and inherited by whatever it starts: how they are found. */
export const markerName = "POCKET_AGENT_RUN";

/** What is the server's own business, or would make the agent behave as somebody else's child. */
const removedNames: ReadonlySet<string> = new Set([
  "NODE_OPTIONS",
  "CLAUDECODE",
  "CLAUDE_CODE_CHILD_SESSION",
  "CLAUDE_CODE_SESSION_ID",
  "CLAUDE_CODE_ENTRYPOINT",
  // The service manager's, who must hear of this server from nobody else.
  "NOTIFY_SOCKET",
  "WATCHDOG_PID",
  "WATCHDOG_USEC",
  // Logs somebody in at a server: the terminal client's.
  "POCKET_AGENT_TOKEN",
  markerName,
]);
const removedPrefixes = ["PA_", "BUN_", "LD_", "DYLD_"];

export interface EnvironmentSource {
  /** The server's own. */
  readonly environment: Environment;
  /** `NAME=value` entries that are added to it. */
  readonly extraEnv: readonly string[];
  readonly sshAgent: boolean;
}

/** What the CLI gets to see of the server's environment, whatever it is started for. */
export function cleanEnvironment(source: EnvironmentSource): Record<string, string> {
  const clean: Record<string, string> = {};
  for (const [name, value] of Object.entries({ ...source.environment, ...extra(source) })) {
    const kept = !removedNames.has(name) && !removedPrefixes.some((part) => name.startsWith(part));
    if (value !== undefined && kept) clean[name] = value;
  }
  if (!source.sshAgent) delete clean["SSH_AUTH_SOCK"];
  // An update in the middle of a run would change the program under it.
  clean["DISABLE_AUTOUPDATER"] = "1";
  return clean;
}

/** The environment of one run. */
export function runEnvironment(
  clean: Readonly<Record<string, string>>,
  run: { readonly marker: string; readonly trusted: boolean },
): Record<string, string> {
  const marked = { ...clean, [markerName]: run.marker };
  return run.trusted ? marked : { ...marked, ...withoutGitHooks(clean) };
}

/** A repository's own git configuration can name a command that `git status` runs. */
function withoutGitHooks(clean: Readonly<Record<string, string>>): Record<string, string> {
  const given = Number(clean["GIT_CONFIG_COUNT"] ?? 0);
  const count = Number.isSafeInteger(given) && given > 0 ? given : 0;
  return {
    CLAUDE_CODE_DISABLE_GIT_INSTRUCTIONS: "1",
    GIT_CONFIG_COUNT: String(count + 1),
    [`GIT_CONFIG_KEY_${count}`]: "core.fsmonitor",
    [`GIT_CONFIG_VALUE_${count}`]: "false",
  };
}

function extra({ extraEnv }: EnvironmentSource): Record<string, string> {
  return Object.fromEntries(
    extraEnv.map((entry) => {
      const at = entry.indexOf("=");
      if (at < 1) throw new Error("Cannot use an entry of claude.env: Expected NAME=value");
      return [entry.slice(0, at), entry.slice(at + 1)];
    }),
  );
}
