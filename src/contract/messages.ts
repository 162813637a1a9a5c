/**
 * The wire protocol: one row per message type, in both directions. Types, validation, authority,
 * rate limits, routing exhaustiveness, the test client's checks and the README come from here.
 */
import * as v from "valibot";
import { agentOptions, image, model, noArray, permissionModes } from "./agent-options.ts";
import { type ErrorCode, errors } from "./errors.ts";

export const protocolVersion = 1;
export const subprotocol = `pocket-agent.v${protocolVersion}`;

const seq = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const count = seq;
const uuid = v.pipe(v.string(), v.uuid());
const epoch = v.pipe(v.string(), v.regex(/^[0-9a-f]{12}$/, "Expected 12 hex digits"));
const timestamp = v.pipe(v.string(), v.isoTimestamp());
const instant = v.pipe(
  v.string(),
  v.regex(/^\d{4}-\d{2}-\d{2}(T[\d:.]+(Z|[+-]\d{2}:\d{2}))?$/, "Expected a time in ISO 8601"),
  v.check((text) => !Number.isNaN(Date.parse(text)), "Expected a time that exists"),
);
const nothing = v.pipe(
  v.nullish(v.strictObject({})),
  v.transform(() => ({})),
);
export const scopes = ["read", "approve", "full"] as const;
export type Scope = (typeof scopes)[number];

/** An authorized_keys line or its base64 blob; the longest, of an RSA key of 8192 bits, has 1,500. */
const publicKey = v.pipe(v.string(), v.nonEmpty(), v.maxLength(8192));
const signature = v.pipe(v.string(), v.nonEmpty(), v.maxLength(8192));

/** Bytes in base64url, as a browser's PushSubscription gives them. */
const bytesOf = (length: number) =>
  v.pipe(
    v.string(),
    v.regex(
      new RegExp(`^[A-Za-z0-9_-]{${Math.ceil((length * 4) / 3)}}$`),
      `Expected ${length} bytes in base64url`,
    ),
  );
/** Where a device is notified, as its browser's `PushSubscription.toJSON()` has it. */
export const pushSubscription = v.strictObject({
  endpoint: v.pipe(v.string(), v.url(), v.maxLength(2048)),
  keys: v.strictObject({ p256dh: bytesOf(65), auth: bytesOf(16) }),
});
export type PushSubscription = Readonly<v.InferOutput<typeof pushSubscription>>;

export interface ClientRow {
  about: string;
  /** Whether the message is about one project, and so must name it. */
  project: boolean;
  /** The least scope that may send it; `none` is for who has not authenticated yet. */
  scope: Scope | "none";
  /** Fields that need a greater one. */
  fields?: Readonly<Record<string, Scope>>;
  /** Tokens it takes from the connection's rate limit; 0 is never limited. */
  cost: number;
  reply: string;
  data: v.GenericSchema;
}

/** What a client may send. */
export const clientMessages = {
  auth_response: {
    about: "Log in with a key that is authorized or paired",
    project: false,
    scope: "none",
    cost: 1,
    reply: "auth_success",
    data: v.strictObject({ public_key: publicKey, signature }),
  },
  auth_token: {
    about: "Log in with a token that was given before",
    project: false,
    scope: "none",
    cost: 1,
    reply: "auth_success",
    data: v.strictObject({ token: v.pipe(v.string(), v.nonEmpty(), v.maxLength(256)) }),
  },
  auth_pair: {
    about: "Become a device of this server, with a key of its own and the code that it was shown",
    project: false,
    scope: "none",
    cost: 1,
    reply: "auth_success",
    data: v.strictObject({
      public_key: publicKey,
      name: v.pipe(v.string(), v.nonEmpty(), v.maxLength(256)),
      signature,
      mac: v.pipe(v.string(), v.nonEmpty(), v.maxLength(64)),
    }),
  },
  project_create: {
    about: "Make a project of a directory",
    project: false,
    scope: "full",
    cost: 1,
    reply: "project_state",
    data: v.strictObject({
      path: v.pipe(v.string(), v.nonEmpty(), v.maxLength(4096)),
      trusted: v.optional(v.boolean()),
    }),
  },
  project_list: {
    about: "List the projects, oldest first",
    project: false,
    scope: "read",
    cost: 1,
    reply: "project_list_response",
    data: nothing,
  },
  project_delete: {
    about: "Forget a project: its metadata and its log, never its directory",
    project: true,
    scope: "full",
    cost: 1,
    reply: "project_deleted",
    data: nothing,
  },
  project_join: {
    about: "Subscribe to a project, after everything the client already has",
    project: true,
    scope: "read",
    cost: 1,
    reply: "project_joined",
    data: v.nullish(
      v.strictObject({
        after_seq: v.optional(seq),
        epoch: v.optional(epoch),
        deltas: v.optional(v.boolean(), true),
      }),
      { deltas: true },
    ),
  },
  project_leave: {
    about: "Unsubscribe from a project",
    project: true,
    scope: "read",
    cost: 1,
    reply: "project_left",
    data: nothing,
  },
  project_view: {
    about:
      "Say whether somebody looks at a joined project now; then nobody is notified about it. Ends with the subscription",
    project: true,
    scope: "read",
    cost: 1,
    reply: "project_viewed",
    data: v.strictObject({ visible: v.boolean() }),
  },
  project_trust: {
    about: "Say whether the directory's own settings may take effect, from the next run on",
    project: true,
    scope: "full",
    cost: 1,
    reply: "project_state",
    data: v.strictObject({ trusted: v.boolean() }),
  },
  execute: {
    about: "Run a prompt; what the agent prints streams to every subscriber",
    project: true,
    scope: "full",
    cost: 1,
    reply: "project_state",
    data: v.strictObject({
      prompt: v.pipe(
        v.string(),
        v.check((text) => text.trim() !== "", "Expected a prompt that is not blank"),
      ),
      options: v.nullish(agentOptions),
      images: v.nullish(v.pipe(v.array(image), v.maxLength(100))),
      queue: v.optional(v.boolean(), false),
      execution_id: v.optional(uuid),
    }),
  },
  execution_cancel: {
    about: "Take a queued prompt back",
    project: true,
    scope: "full",
    cost: 1,
    reply: "execution_cancelled",
    data: v.strictObject({ execution_id: uuid }),
  },
  agent_kill: {
    about: "Stop the run; the reply comes once nothing of it is left",
    project: true,
    scope: "full",
    cost: 0,
    reply: "project_state",
    data: v.nullish(v.strictObject({ force: v.optional(v.boolean(), false) }), { force: false }),
  },
  agent_new_session: {
    about: "Let the next prompt begin a new conversation",
    project: true,
    scope: "full",
    cost: 1,
    reply: "session_reset",
    data: nothing,
  },
  agent_set: {
    about: "Change the permission mode or the model, of a live run at once; null is the default",
    project: true,
    scope: "full",
    cost: 1,
    reply: "project_state",
    data: v.strictObject({
      permission_mode: v.optional(v.nullable(v.picklist(permissionModes))),
      model: v.optional(v.nullable(model)),
    }),
  },
  permission_response: {
    about: "Answer what the agent asks; the first answer wins",
    project: true,
    scope: "approve",
    // They decide what runs.
    fields: { updated_input: "full", remember: "full", message: "full" },
    cost: 0,
    reply: "permission_resolved",
    data: v.strictObject({
      permission_id: uuid,
      decision: v.picklist(["allow", "deny"]),
      updated_input: v.optional(v.pipe(noArray, v.record(v.string(), v.unknown()))),
      answers: v.optional(
        v.pipe(noArray, v.record(v.string(), v.union([v.string(), v.array(v.string())]))),
      ),
      remember: v.optional(v.boolean()),
      message: v.optional(v.pipe(v.string(), v.maxLength(10_000))),
      interrupt: v.optional(v.boolean()),
    }),
  },
  session_list: {
    about: "List the agent's sessions in this directory, newest first",
    project: true,
    scope: "full",
    cost: 1,
    reply: "session_list_response",
    data: v.nullish(
      v.strictObject({
        limit: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(1000)), 50),
      }),
      { limit: 50 },
    ),
  },
  session_resume: {
    about: "Go on with one of those sessions, or with a copy of it",
    project: true,
    scope: "full",
    cost: 1,
    reply: "project_state",
    data: v.strictObject({ session_id: uuid, fork: v.optional(v.boolean(), false) }),
  },
  get_messages: {
    about: "Read a page of the project's history",
    project: true,
    scope: "read",
    cost: 1,
    reply: "messages_response",
    data: v.nullish(
      v.strictObject({
        since: v.optional(instant),
        after_seq: v.optional(seq),
        before_seq: v.optional(seq),
        limit: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(1000)), 1000),
      }),
      { limit: 1000 },
    ),
  },
  directory_list: {
    about:
      "List the directories in a directory, to find one for a project; at first the home folder",
    project: false,
    scope: "full",
    cost: 1,
    reply: "directory_list_response",
    data: v.nullish(
      v.strictObject({ path: v.optional(v.pipe(v.string(), v.nonEmpty(), v.maxLength(4096))) }),
      {},
    ),
  },
  device_list: {
    about: "List the devices that may come in, oldest first",
    project: false,
    scope: "full",
    cost: 1,
    reply: "device_list_response",
    data: nothing,
  },
  device_revoke: {
    about:
      "Shut a device out: its connections, tokens, queued prompts, and runs unless they are kept",
    project: false,
    scope: "full",
    cost: 1,
    reply: "device_revoked",
    data: v.strictObject({
      device_id: v.pipe(v.string(), v.nonEmpty(), v.maxLength(128)),
      keep_runs: v.optional(v.boolean(), false),
    }),
  },
  push_key: {
    about: "Ask for the key that a browser needs to subscribe to Web Push",
    project: false,
    scope: "read",
    cost: 1,
    reply: "push_key_response",
    data: nothing,
  },
  push_subscribe: {
    about: "Have this device notified; a device has one subscription, the newest",
    project: false,
    scope: "read",
    cost: 1,
    reply: "push_subscribed",
    data: pushSubscription,
  },
  push_unsubscribe: {
    about: "Have this device notified no more",
    project: false,
    scope: "read",
    cost: 1,
    reply: "push_unsubscribed",
    data: nothing,
  },
  health: {
    about: "Ask how the server and the agent are",
    project: false,
    scope: "read",
    cost: 1,
    reply: "health_status",
    data: nothing,
  },
  ping: {
    about: "Ask for a pong; browsers cannot send protocol pings",
    project: false,
    scope: "read",
    cost: 1,
    reply: "pong",
    data: nothing,
  },
} as const satisfies Record<string, ClientRow>;

const fault = v.strictObject({
  code: v.picklist(Object.keys(errors) as ErrorCode[]),
  message: v.string(),
  details: v.optional(v.record(v.string(), v.unknown())),
});

const usage = v.strictObject({
  cost_usd: v.number(),
  input_tokens: count,
  output_tokens: count,
  runs: count,
  duration_ms: count,
});

export const projectState = v.strictObject({
  id: uuid,
  path: v.string(),
  state: v.picklist(["IDLE", "EXECUTING", "ERROR"]),
  created_at: timestamp,
  last_active: timestamp,
  session_id: v.nullable(v.string()),
  epoch,
  last_seq: seq,
  trusted: v.boolean(),
  available: v.boolean(),
  permission_mode: v.picklist(permissionModes),
  model: v.nullable(v.string()),
  resume_command: v.nullable(v.string()),
  execution: v.nullable(v.strictObject({ id: uuid, started_at: timestamp })),
  queued: count,
  pending_permissions: count,
  usage,
  error: v.nullable(v.pick(fault, ["code", "message"])),
});
export type ProjectState = v.InferOutput<typeof projectState>;

/** Who did something: a device, by the name that it had then. Null without authentication. */
export const actor = v.strictObject({ id: v.string(), name: v.string() });
export type Actor = v.InferOutput<typeof actor>;

/** An accepted prompt: `user_message` live, and `client`/`execute` in the history. */
const prompt = v.strictObject({
  execution_id: uuid,
  prompt: v.string(),
  options: agentOptions,
  images: count,
  device: v.nullable(actor),
});
export type Prompt = v.InferOutput<typeof prompt>;

const permissionKinds = ["tool", "question", "plan"] as const;
const permissionRequest = v.strictObject({
  permission_id: uuid,
  execution_id: uuid,
  kind: v.picklist(permissionKinds),
  tool_name: v.string(),
  display_name: v.optional(v.string()),
  input: v.record(v.string(), v.unknown()),
  description: v.optional(v.string()),
  suggestions: v.optional(v.array(v.record(v.string(), v.unknown()))),
  tool_use_id: v.optional(v.string()),
  agent_id: v.optional(v.string()),
  requested_at: timestamp,
});
export type PermissionRequest = v.InferOutput<typeof permissionRequest>;

const resolution = v.strictObject({
  permission_id: uuid,
  decision: v.picklist(["allow", "deny", "withdrawn"]),
  device: v.optional(actor),
  reason: v.optional(v.string()),
});
export type Resolution = v.InferOutput<typeof resolution>;

const record = v.variant("direction", [
  v.strictObject({
    seq,
    timestamp,
    direction: v.literal("client"),
    message: v.strictObject({ type: v.literal("execute"), data: prompt }),
  }),
  v.strictObject({
    seq,
    timestamp,
    direction: v.literal("claude"),
    message: v.looseObject({ type: v.string() }),
  }),
  v.strictObject({
    seq,
    timestamp,
    direction: v.literal("server"),
    message: v.strictObject({ type: v.string(), data: v.looseObject({}) }),
  }),
]);

export const executionStatuses = ["queued", "running", "succeeded", "failed", "killed"] as const;
export type ExecutionStatus = (typeof executionStatuses)[number];

const session = v.strictObject({
  session_id: v.string(),
  title: v.string(),
  first_prompt: v.string(),
  updated_at: timestamp,
  messages: count,
  open_in_terminal: v.boolean(),
});
export type Session = v.InferOutput<typeof session>;

export const deviceKinds = ["ssh", "paired", "token"] as const;
const deviceSummary = v.strictObject({
  id: v.string(),
  name: v.string(),
  scope: v.picklist(scopes),
  kind: v.picklist(deviceKinds),
  created_at: timestamp,
  last_seen: v.nullable(timestamp),
  address: v.nullable(v.string()),
  connected: v.boolean(),
});
export type DeviceSummary = v.InferOutput<typeof deviceSummary>;

interface ServerRow {
  about: string;
  /** `event`: logged, numbered, to a project's subscribers. `lobby`: to every client. */
  kind: "reply" | "event" | "lobby" | "connection";
  data: v.GenericSchema;
}

/** What the server may send. */
export const serverMessages = {
  hello: {
    about: "The first frame of every connection",
    kind: "connection",
    data: v.strictObject({
      protocol: v.literal(protocolVersion),
      server: v.strictObject({ name: v.string(), version: v.string(), id: v.string() }),
      auth: v.strictObject({
        required: v.boolean(),
        methods: v.array(v.string()),
        challenge: v.optional(v.string()),
        expires_at: v.optional(timestamp),
      }),
    }),
  },
  auth_success: {
    about: "The client is in, with a token for the next time; `server_mac` answers a pairing",
    kind: "reply",
    data: v.strictObject({
      device: v.strictObject({ id: v.string(), name: v.string(), scope: v.picklist(scopes) }),
      token: v.string(),
      expires_at: timestamp,
      server_mac: v.optional(v.string()),
    }),
  },
  error: {
    about: "A refused request; as an event, why a run ended badly",
    kind: "event",
    data: fault,
  },
  project_state: { about: "The state of a project", kind: "event", data: projectState },
  user_message: { about: "A prompt was accepted", kind: "event", data: prompt },
  agent_message: {
    about: "One line of the agent, untouched; a `stream_event` has no `seq` and is not logged",
    kind: "event",
    data: v.looseObject({ type: v.string() }),
  },
  permission_request: {
    about: "The agent asks; it waits until somebody answers",
    kind: "event",
    data: permissionRequest,
  },
  permission_resolved: {
    about: "A request was answered, or withdrawn",
    kind: "event",
    data: resolution,
  },
  execution_queued: {
    about: "A prompt waits its turn; the reply has its id and position only",
    kind: "event",
    data: v.strictObject({
      ...v.partial(prompt).entries,
      execution_id: uuid,
      position: count,
    }),
  },
  execution_cancelled: {
    about: "A queued prompt will not run; the reply has its id only",
    kind: "event",
    data: v.strictObject({ execution_id: uuid, reason: v.optional(v.string()) }),
  },
  session_reset: {
    about: "The next prompt begins a new conversation",
    kind: "event",
    data: v.strictObject({ previous_session_id: v.nullable(v.string()) }),
  },
  notice: {
    about: "Something a person should know that ended nothing; about storage: without `seq`",
    kind: "event",
    data: v.strictObject({
      code: v.string(),
      message: v.string(),
      details: v.optional(v.record(v.string(), v.unknown())),
    }),
  },
  caught_up: {
    about: "The replay is over; live events follow",
    kind: "connection",
    data: v.strictObject({ seq }),
  },
  project_updated: { about: "A project was created or changed", kind: "lobby", data: projectState },
  project_deleted: { about: "A project is gone", kind: "lobby", data: v.strictObject({}) },
  device_added: {
    about: "A key, device or token may come in that could not before; to devices of scope full",
    kind: "lobby",
    data: deviceSummary,
  },
  server_stats: {
    about: "Every 10 s",
    kind: "lobby",
    data: v.strictObject({
      connections: count,
      projects: count,
      executions: v.strictObject({
        active: count,
        queued: count,
        total: count,
        success: count,
        failed: count,
        avg_duration_ms: count,
      }),
      messages: v.strictObject({ sent: count, received: count, rate_per_sec: v.number() }),
      uptime: count,
    }),
  },
  server_shutdown: {
    about: "The server is going down; close 1001 follows",
    kind: "lobby",
    data: v.strictObject({ reason: v.string(), deadline: timestamp }),
  },
  project_list_response: {
    about: "All projects",
    kind: "reply",
    data: v.strictObject({ projects: v.array(projectState) }),
  },
  project_joined: {
    about: "What the project is, and from where its events follow",
    kind: "reply",
    data: v.strictObject({
      ...projectState.entries,
      resume: v.picklist(["fresh", "reset", "truncated", "ok"]),
      from: seq,
      permissions: v.array(permissionRequest),
    }),
  },
  execution_status: {
    about: "What became of an execution whose id was used before",
    kind: "reply",
    data: v.strictObject({
      execution_id: uuid,
      status: v.picklist(executionStatuses),
      position: v.optional(count),
    }),
  },
  session_list_response: {
    about: "The agent's sessions in this directory, newest first",
    kind: "reply",
    data: v.strictObject({ sessions: v.array(session) }),
  },
  directory_list_response: {
    about: "The directories in a directory, by name; hidden ones last",
    kind: "reply",
    data: v.strictObject({
      path: v.string(),
      parent: v.nullable(v.string()),
      entries: v.array(
        v.strictObject({ name: v.string(), path: v.string(), project_id: v.optional(uuid) }),
      ),
    }),
  },
  device_list_response: {
    about: "The devices that may come in, oldest first",
    kind: "reply",
    data: v.strictObject({ devices: v.array(deviceSummary) }),
  },
  device_revoked: {
    about: "That device is shut out",
    kind: "reply",
    data: v.strictObject({ device_id: v.string() }),
  },
  project_viewed: {
    about: "What this connection has said",
    kind: "reply",
    data: v.strictObject({ visible: v.boolean() }),
  },
  push_key_response: {
    about: "The server's public key (VAPID), an uncompressed point in base64url",
    kind: "reply",
    data: v.strictObject({ public_key: bytesOf(65) }),
  },
  push_subscribed: {
    about: "This device is notified",
    kind: "reply",
    data: v.strictObject({}),
  },
  push_unsubscribed: {
    about: "This device is notified no more",
    kind: "reply",
    data: v.strictObject({}),
  },
  project_left: { about: "Unsubscribed", kind: "reply", data: v.strictObject({}) },
  messages_response: {
    about: "A page of history, oldest first",
    kind: "reply",
    data: v.strictObject({ messages: v.array(record), has_more: v.boolean() }),
  },
  health_status: {
    about: "How the server and the agent are",
    kind: "reply",
    data: v.strictObject({
      status: v.picklist(["healthy", "degraded", "unhealthy"]),
      uptime: count,
      version: v.string(),
      connections: v.strictObject({ active: count, limit: count }),
      projects: v.strictObject({ count, limit: count, executing: count }),
      resources: v.strictObject({
        cpu_percent: v.number(),
        memory_mb: v.number(),
        disk_free_gb: v.number(),
        event_loop_lag_ms: v.number(),
      }),
      claude: v.strictObject({
        available: v.boolean(),
        version: v.nullable(v.string()),
        authenticated: v.nullable(v.boolean()),
        path: v.nullable(v.string()),
      }),
      problems: v.array(v.string()),
    }),
  },
  pong: { about: "The answer to ping", kind: "reply", data: v.strictObject({}) },
} as const satisfies Record<string, ServerRow>;

type ClientTable = typeof clientMessages;
export type ClientType = keyof ClientTable;
export type ClientMessage<T extends ClientType = ClientType> = {
  [K in T]: {
    type: K;
    project_id: ClientTable[K]["project"] extends true ? string : undefined;
    data: v.InferOutput<ClientTable[K]["data"]>;
    request_id: string | undefined;
  };
}[T];

type ServerTable = typeof serverMessages;
export type ServerType = keyof ServerTable;
export type ServerData<T extends ServerType> = v.InferOutput<ServerTable[T]["data"]>;
type ServerTypeOf<K extends ServerRow["kind"]> = {
  [T in ServerType]: ServerTable[T]["kind"] extends K ? T : never;
}[ServerType];
export type LobbyType = ServerTypeOf<"lobby">;
/** What the server itself has to say about a project; logged with direction `server`. */
export type ProjectEvent = {
  [T in Exclude<ServerTypeOf<"event">, "user_message" | "agent_message">]: {
    type: T;
    data: ServerData<T>;
  };
}[Exclude<ServerTypeOf<"event">, "user_message" | "agent_message">];
export type Health = ServerData<"health_status">;
export type Stats = ServerData<"server_stats">;
