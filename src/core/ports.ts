/**
 * Everything the core needs from the outside world. The core imports this file and `contract/`,
 * nothing else; adapters implement it; tests of rules fake it.
 */
import type { AgentOptions, Image, PermissionMode } from "../contract/agent-options.ts";
import type { Fault } from "../contract/errors.ts";
import type { CounterName, GaugeName, HistogramName, Labels } from "../contract/metrics.ts";
import type {
  Actor,
  ExecutionStatus,
  ProjectState,
  ServerData,
  ServerType,
  Session,
} from "../contract/messages.ts";
import type { Notification } from "../contract/notifications.ts";

export interface Clock {
  readonly now: () => Date;
  /** Milliseconds that never go backwards, from an arbitrary start. */
  readonly monotonic: () => number;
  /** Runs `task` once after `ms`; disposing cancels it. */
  readonly after: (ms: number, task: () => void) => Disposable;
  /** Runs `task` once the sockets and pipes that are ready have had their turn. */
  readonly soon: (task: () => void) => void;
}

/** Sends an already encoded frame to everyone subscribed to a topic. */
export interface Publisher {
  readonly publish: (topic: string, type: ServerType, frame: string) => void;
}

/** One client's socket, as far as a subscription needs it. */
export interface Outlet {
  readonly send: (type: ServerType, frame: string) => void;
  /** Bytes accepted by `send` or by publishing that the socket has not taken yet. */
  readonly buffered: () => number;
  readonly subscribe: (topic: string) => void;
  readonly unsubscribe: (topic: string) => void;
  /** Whether the socket is still open. */
  readonly open: () => boolean;
}

/** Reaches people who are not connected. Returns at once and never throws. */
export interface Notifications {
  readonly send: (notification: Notification) => void;
}

/** Counts and log lines. Fields hold ids and lengths, never what people wrote. */
export interface Telemetry {
  readonly count: <M extends CounterName>(metric: M, labels: Labels<M>, by?: number) => void;
  readonly gauge: <M extends GaugeName>(metric: M, labels: Labels<M>, value: number) => void;
  readonly observe: <M extends HistogramName>(metric: M, labels: Labels<M>, value: number) => void;
  readonly log: (
    level: "debug" | "info" | "warn" | "error",
    text: string,
    fields?: Readonly<Record<string, unknown>>,
  ) => void;
}

export type Direction = "client" | "claude" | "server";

/** What is about to be logged: who said it, and the JSON text of it. */
export interface LogEntry {
  readonly direction: Direction;
  readonly message: string;
}

/** One record of a log. `line` is its JSON text on disk, without the newline. */
export interface LogRecord extends LogEntry {
  readonly seq: number;
  /** ISO 8601; never less than that of the record before. */
  readonly timestamp: string;
  readonly line: string;
}

/** What must be remembered about a log, outside of it, to notice that it was lost or replaced. */
export interface LogState {
  /** 12 hex digits; another epoch is another history. */
  readonly epoch: string;
  readonly last_seq: number;
  /** The boot of the machine in which the log was last open, and whether it was closed in order. */
  readonly boot_id: string;
  readonly clean: boolean;
  /** The newest file. A copy of it, as from a backup, differs. */
  readonly file: {
    readonly name: string;
    readonly dev: number;
    readonly ino: number;
    readonly birth_ms: number;
  } | null;
}

export interface LogQuery {
  /** Exclusive bounds, which intersect. */
  readonly after_seq?: number | undefined;
  readonly before_seq?: number | undefined;
  readonly since?: string | undefined;
  readonly limit: number;
}

/** Append-only history of one project. */
export interface MessageLog {
  /** The number of the oldest record that is kept; `lastSeq + 1` when there is none. */
  readonly firstSeq: () => number;
  readonly lastSeq: () => number;
  readonly state: () => LogState;
  /**
   * Writes all entries or none, synchronously, and returns their records. Throws a Fault
   * STORAGE_ERROR when they cannot be written; no number is used up then.
   */
  readonly append: (entries: readonly LogEntry[], at: Date) => readonly LogRecord[];
  /** Resolves when everything appended before the call is on the disk; rejects with STORAGE_ERROR. */
  readonly sync: () => Promise<void>;
  /** Reads forward from the first record after `afterSeq`. */
  readonly reader: (afterSeq: number) => LogReader;
  /** A page as `get_messages` describes it: oldest first, about 1 MiB, at least one record. */
  readonly page: (query: LogQuery) => { records: readonly LogRecord[]; hasMore: boolean };
  /** Reads backward from the newest record, for as long as `visit` returns true. */
  readonly scanBack: (visit: (record: LogRecord) => boolean) => void;
  /** Syncs, closes, and marks the log as closed in order. */
  readonly close: () => Promise<void>;
}

export interface LogReader {
  /** The next records, about `maxBytes` of them and at least one; none when it is level with the log. */
  readonly next: (maxBytes: number) => readonly LogRecord[];
}

/** What a log found when it was opened, for a person to know. */
export interface LogRepair {
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
}

export interface ProjectMetadata {
  readonly version: 1;
  readonly id: string;
  readonly path: string;
  /** What was found there last; null where that was never noted. */
  readonly directory: DirectoryIdentity | null;
  readonly created_at: string;
  /** Set by a person, or null: then the CLI's own record decides. */
  readonly trusted: boolean | null;
  /** Whether a turn of this session was ever completed, so that resuming it must work. */
  readonly session_proven: boolean;
  /** Set by `agent_set`; null takes the configuration's. */
  readonly permission_mode: PermissionMode | null;
  readonly model: string | null;
  /** The session is to be continued as a copy. */
  readonly fork: boolean;
  /** What a person allowed for the rest of this session. */
  readonly remembered: {
    readonly rules: readonly string[];
    readonly directories: readonly string[];
  };
  /** Requests without an answer, which nobody can answer after a crash. */
  readonly open_permissions: readonly string[];
  readonly queued: number;
  /** The queue waits until a person has seen why the last run ended. */
  readonly paused: boolean;
  /** Caches of what the log's tail says. */
  readonly state: ProjectState["state"];
  readonly session_id: string | null;
  readonly last_active: string;
  readonly usage: ProjectState["usage"];
  readonly error: ProjectState["error"];
  readonly log: LogState | null;
}

/** A prompt that waits its turn. */
export interface QueuedPrompt {
  readonly execution_id: string;
  readonly prompt: string;
  readonly options: AgentOptions;
  readonly images: readonly Image[];
  readonly device: Actor | null;
  readonly queued_at: string;
}

/** Which prompts a project has accepted, as of the record `seq` of its log. */
export interface ExecutionsFile {
  readonly seq: number;
  /** Oldest first. */
  readonly accepted: readonly (readonly [id: string, status: ExecutionStatus])[];
  readonly queue: readonly QueuedPrompt[];
}

/** Project metadata and logs on disk. */
export interface ProjectStore {
  readonly load: () => readonly ProjectMetadata[];
  /** Resolves once the metadata is on the disk; saves of one project happen in order. */
  readonly save: (metadata: ProjectMetadata) => Promise<void>;
  readonly loadExecutions: (id: string) => ExecutionsFile | null;
  readonly saveExecutions: (id: string, file: ExecutionsFile) => Promise<void>;
  /** Forgets metadata and log; resolves once that is on the disk. */
  readonly remove: (id: string) => Promise<void>;
  /** Opens or creates a project's log. `changed` is called when `state()` should be saved. */
  readonly openLog: (
    id: string,
    recorded: LogState | null,
    changed: () => void,
  ) => { log: MessageLog; repairs: readonly LogRepair[] };
}

/** Whose a directory is, and which: `dev` and `ino` mean something within one boot only. */
export interface DirectoryIdentity {
  readonly uid: number;
  readonly dev: number;
  readonly ino: number;
  readonly boot_id: string;
}

/** What a directory is, after symbolic links. */
export interface Directory extends DirectoryIdentity {
  readonly path: string;
}

export interface Directories {
  /** Throws a Fault INVALID_PATH that says why the path cannot be worked in. */
  readonly resolve: (path: string) => Directory;
  /** Whether the directory of a real path is still there, and the server can enter it. */
  readonly available: (path: string) => boolean;
  /** The directories in a directory, or where to begin. Rejects with a Fault INVALID_PATH. */
  readonly list: (path: string | undefined) => Promise<ServerData<"directory_list_response">>;
}

export interface Disk {
  /** Bytes free where the data lives; cached for a second. */
  readonly free: () => number;
}

export interface AgentRequest {
  readonly projectId: string;
  readonly cwd: string;
  readonly trusted: boolean;
  readonly permissionMode: PermissionMode;
  readonly model: string | null;
  readonly options: AgentOptions;
  /** Resumes this session, or begins one with this id. */
  readonly session: { readonly id: string; readonly resume: boolean; readonly fork: boolean };
}

/** The agent's own record of conversations, its terminal's included. */
export interface SessionBook {
  /** Newest first. */
  readonly list: (directory: string, limit: number) => Promise<Session[]>;
  /** Undefined when that directory has no such session. */
  readonly find: (directory: string, sessionId: string) => Promise<Session | undefined>;
}

/** Starts the agent program. */
export interface AgentRunner {
  /** Why no agent can be started, as far as is known without starting one. */
  readonly obstacle: () => Fault | undefined;
  /** Whether the CLI's own record says that the owner trusts this directory. */
  readonly trusts: (path: string) => boolean;
  /** Spawns at once. Throws a Fault when that fails. */
  readonly start: (request: AgentRequest) => AgentProcess;
  /** Resolves once nothing that an earlier server started for this project is left. */
  readonly swept: (projectId: string) => Promise<void>;
  readonly health: () => Promise<{
    available: boolean;
    version: string | null;
    authenticated: boolean | null;
    path: string | null;
    problem: string | null;
  }>;
}

/** One line that the agent printed. Unknown fields pass through untouched in `text`. */
export type AgentLine =
  | { readonly kind: "event"; readonly text: string; readonly event: AgentEvent }
  /** A partial message: published, never logged. */
  | { readonly kind: "delta"; readonly text: string }
  /** The agent asks whether it may use a tool; `requestId` goes back with the answer. */
  | { readonly kind: "request"; readonly requestId: string; readonly request: ToolRequest }
  /** It no longer wants to know. */
  | { readonly kind: "withdrawal"; readonly requestId: string }
  /** Something was wrong with the line itself; nothing of it is passed on. */
  | { readonly kind: "unreadable"; readonly message: string; readonly bytes: number };

export interface AgentEvent {
  readonly type: string;
  readonly subtype?: string | undefined;
  readonly session_id?: string | undefined;
  readonly [key: string]: unknown;
}

export interface ToolRequest {
  readonly tool_name: string;
  readonly input: Readonly<Record<string, unknown>>;
  readonly [key: string]: unknown;
}

export type ToolAnswer =
  | {
      readonly behavior: "allow";
      readonly updatedInput: Readonly<Record<string, unknown>>;
      readonly updatedPermissions?: readonly unknown[];
    }
  | { readonly behavior: "deny"; readonly message: string; readonly interrupt?: boolean };

export interface AgentExit {
  readonly code: number | null;
  readonly signal: string | null;
  /** The last 8 kB of what it wrote to stderr. */
  readonly stderr: string;
}

/** A live agent. Whoever starts one must read its `lines` to the end. */
export interface AgentProcess {
  /** One batch per chunk read. The agent is not read from while the consumer holds a batch. */
  readonly lines: AsyncIterable<readonly AgentLine[]>;
  /** Resolves when the process is gone; its last lines may still be unread. */
  readonly exit: Promise<AgentExit>;
  readonly prompt: (text: string, images: readonly Image[]) => void;
  readonly answer: (requestId: string, answer: ToolAnswer) => void;
  /** Change the live process; reject with a Fault when it refuses. */
  readonly setPermissionMode: (mode: PermissionMode) => Promise<void>;
  readonly setModel: (model: string | null) => Promise<void>;
  /** Lets it finish by itself: end of input, then ever firmer. Resolves once nothing of it is left. */
  readonly close: () => Promise<void>;
  /** Interrupts it, then as `close`; `force` goes straight to SIGKILL. Resolves likewise. */
  readonly stop: (force: boolean) => Promise<void>;
}
