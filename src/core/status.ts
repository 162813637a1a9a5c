import type { PermissionMode } from "../contract/agent-options.ts";
import type { ProjectState } from "../contract/messages.ts";
import type { ResolvedOptions } from "./agent-request.ts";
import type { Remembered } from "./permission.ts";
import type { DirectoryIdentity } from "./ports.ts";

/** What changes about a project. All of it changes together with a logged `project_state`. */
export interface Status {
  readonly state: ProjectState["state"];
  readonly execution: ProjectState["execution"];
  /** What the run in progress was started with. */
  readonly running: ResolvedOptions | null;
  readonly sessionId: string | null;
  /** A turn of this session was completed, so that resuming it must work. */
  readonly sessionProven: boolean;
  /** The session is to be continued as a copy. */
  readonly fork: boolean;
  readonly remembered: Remembered;
  /** Which directory was worked in last, or trusted. */
  readonly directory: DirectoryIdentity | null;
  /** Set by a person; null where the CLI's record or the configuration decides. */
  readonly trusted: boolean | null;
  readonly permissionMode: PermissionMode | null;
  readonly model: string | null;
  /** The queue waits until a person has seen why the last run ended. */
  readonly paused: boolean;
  readonly lastActive: string;
  readonly usage: ProjectState["usage"];
  readonly error: ProjectState["error"];
}

/** A session that nothing is known of yet. */
export const freshSession = {
  sessionId: null,
  sessionProven: false,
  fork: false,
  remembered: { rules: [], directories: [] },
} as const satisfies Partial<Status>;

/** A project's status as clients see it; mode and model are those of the run in progress, if any. */
export function describe(
  status: Status,
  about: Omit<
    ProjectState,
    "state" | "last_active" | "session_id" | "resume_command" | "execution" | "usage" | "error"
  >,
): ProjectState {
  const { sessionId, running } = status;
  return {
    ...about,
    state: status.state,
    last_active: status.lastActive,
    session_id: sessionId,
    permission_mode: running?.permissionMode ?? status.permissionMode ?? about.permission_mode,
    model: running?.model ?? status.model ?? about.model,
    resume_command: sessionId && `cd ${shellQuote(about.path)} && claude --resume ${sessionId}`,
    execution: status.execution,
    usage: status.usage,
    error: status.error,
  };
}

function shellQuote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
