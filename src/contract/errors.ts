/**
 * Every error code and close code a client can receive. Wire types, HTTP status, README tables
 * and the `code` label of `pocket_agent_errors_total` all come from these tables.
 */
export const errors = {
  INVALID_MESSAGE: {
    http: 400,
    about: "Not JSON, not an object, unknown type, or a field is wrong (details.path names it)",
  },
  INVALID_PATH: { http: 400, about: "The path cannot be a project" },
  PROJECT_EXISTS: { http: 409, about: "The path is a project already (details.project_id)" },
  PROJECT_NESTING: { http: 409, about: "The path is above or below a project (details.path)" },
  PROJECT_NOT_FOUND: { http: 404, about: "No project has that id" },
  PROJECT_LIMIT: { http: 429, about: "limits.max_projects is reached" },
  EXECUTION_TIMEOUT: {
    http: 504,
    about: "The run was without output for timeouts.execution, or too long in all, and was stopped",
  },
  EXECUTION_FAILED: {
    http: 502,
    about: "The agent ended with an error (details: exit code, its errors, last stderr)",
  },
  EXECUTION_NOT_FOUND: { http: 404, about: "No queued execution has that id" },
  CLAUDE_NOT_FOUND: { http: 503, about: "The CLI is not installed or too old" },
  PROCESS_ACTIVE: { http: 409, about: "Not while a run is in progress" },
  PROCESS_NOT_FOUND: { http: 404, about: "Nothing is running in the project" },
  PERMISSION_NOT_FOUND: { http: 404, about: "No permission request has that id" },
  PERMISSION_RESOLVED: {
    http: 409,
    about: "The permission request was answered before (details: the outcome)",
  },
  SESSION_NOT_FOUND: { http: 404, about: "No such agent session in this directory" },
  SESSION_ACTIVE: { http: 409, about: "That session is open in a terminal; it can be forked" },
  UNAUTHORIZED: { http: 401, about: "Not authenticated" },
  FORBIDDEN: { http: 403, about: "Not allowed for this device or by the configuration" },
  RATE_LIMITED: { http: 429, about: "Too many requests (details.retry_after_ms)" },
  RESOURCE_LIMIT: {
    http: 429,
    about: "A queue, memory or disk limit is reached (details.resource)",
  },
  STORAGE_ERROR: {
    http: 507,
    about: "The log or metadata cannot be written (details.reason)",
  },
  SERVER_SHUTDOWN: { http: 503, about: "The server is going down; no new work is accepted" },
  INTERNAL_ERROR: {
    http: 500,
    about: "A bug; the server's log has its cause under details.correlation_id",
  },
} as const satisfies Record<string, { http: number; about: string }>;

export type ErrorCode = keyof typeof errors;

/** Why the server closed a connection. */
export const closeCodes = {
  1001: { reason: "server going down", reconnect: "yes" },
  1009: { reason: "frame larger than limits.message_size", reconnect: "yes" },
  4400: { reason: "too many unparsable frames", reconnect: "no" },
  4401: { reason: "not authenticated in time, or refused", reconnect: "with other credentials" },
  4403: { reason: "this device was revoked", reconnect: "no" },
  4408: { reason: "no pong, idle too long, or nothing read for 60 s", reconnect: "yes" },
  4429: { reason: "too many requests", reconnect: "after a pause" },
} as const satisfies Record<number, { reason: string; reconnect: string }>;

export type CloseCode = keyof typeof closeCodes;

/**
 * A failure the client may be told about. `message` is a sentence for a person: what cannot be
 * done and what is the case. Anything else that is thrown becomes INTERNAL_ERROR.
 */
export class Fault extends Error {
  override readonly name = "Fault";
  readonly code: ErrorCode;
  readonly details: Record<string, unknown> | undefined;

  constructor(
    code: ErrorCode,
    message: string = errors[code].about,
    details?: Record<string, unknown>,
  ) {
    super(message);
    this.code = code;
    this.details = details;
  }

  /** The `data` of an error frame, and of an `error` event. */
  get data(): { code: ErrorCode; message: string; details?: Record<string, unknown> } {
    const { code, message, details } = this;
    return details ? { code, message, details } : { code, message };
  }
}
