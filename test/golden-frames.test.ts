import { expect, test } from "bun:test";
import * as v from "valibot";
import { type ServerData, type ServerType, serverMessages } from "../src/contract/messages.ts";

const id = "7aa4e42a-b6e9-4915-8bdd-6a8c344571b5";
const timestamp = "2026-01-31T10:20:30.456Z";

const project: ServerData<"project_state"> = {
  id,
  path: "/home/somebody/work: 日本語",
  state: "EXECUTING",
  created_at: timestamp,
  last_active: timestamp,
  session_id: id,
  epoch: "0123456789ab",
  last_seq: 12,
  trusted: false,
  available: true,
  permission_mode: "default",
  model: null,
  resume_command: `claude --resume ${id}`,
  execution: { id, started_at: timestamp },
  queued: 0,
  pending_permissions: 0,
  usage: { cost_usd: 0.25, input_tokens: 10, output_tokens: 20, runs: 2, duration_ms: 3000 },
  error: null,
};
const prompt: ServerData<"user_message"> = {
  execution_id: id,
  prompt: "hello",
  options: { model: "opus", allowed_tools: ["Read"] },
  images: 0,
  device: { id, name: "phone" },
};
const device: ServerData<"device_added"> = {
  id,
  name: "phone",
  scope: "approve",
  kind: "paired",
  created_at: timestamp,
  last_seen: null,
  address: null,
  connected: true,
};
const permission: ServerData<"permission_request"> = {
  permission_id: id,
  execution_id: id,
  kind: "tool",
  tool_name: "Bash",
  input: { command: "ls" },
  suggestions: [{ type: "addRules" }],
  requested_at: timestamp,
};
const health: ServerData<"health_status"> = {
  status: "degraded",
  uptime: 5,
  version: "1.0.0",
  connections: { active: 1, limit: 100 },
  projects: { count: 2, limit: 100, executing: 1 },
  resources: { cpu_percent: 0.5, memory_mb: 60, disk_free_gb: 10.5, event_loop_lag_ms: 0.1 },
  claude: { available: false, version: null, authenticated: null, path: null },
  problems: ["Cannot start claude: it is not installed"],
};
const records: ServerData<"messages_response">["messages"] = [
  { seq: 1, timestamp, direction: "client", message: { type: "execute", data: prompt } },
  { seq: 2, timestamp, direction: "server", message: { type: "project_state", data: { id } } },
  { seq: 3, timestamp, direction: "claude", message: { type: "result", of: ["any", "kind"] } },
];

/** For each row one `data` as clients have always got it, and some that must never leave. */
const golden: { [T in ServerType]: { good: ServerData<T>; wrong: readonly unknown[] } } = {
  hello: {
    good: {
      protocol: 1,
      server: { name: "pocket-agent-server", version: "1.0.0", id: "SHA256:abc" },
      auth: { required: false, methods: [] },
    },
    wrong: [{}, { protocol: 2 }],
  },
  auth_success: {
    good: { device: { id, name: "phone", scope: "full" }, token: "pat_x", expires_at: timestamp },
    wrong: [{}, { device: { id, name: "phone", scope: "none" }, token: "", expires_at: timestamp }],
  },
  device_added: {
    good: device,
    wrong: [
      { ...device, key: "AAAA" },
      { ...device, kind: "none" },
    ],
  },
  device_list_response: { good: { devices: [device] }, wrong: [{}, { devices: [{ id }] }] },
  device_revoked: { good: { device_id: id }, wrong: [{}] },
  directory_list_response: {
    good: { path: "/a", parent: "/", entries: [{ name: "b", path: "/a/b", project_id: id }] },
    wrong: [
      { path: "/a", entries: [] },
      { path: "/a", parent: null, entries: [{ name: "b" }] },
    ],
  },
  error: {
    good: { code: "INVALID_MESSAGE", message: "Cannot", details: { path: "type" } },
    wrong: [{ code: "OOPS", message: "" }, { code: "INVALID_MESSAGE" }],
  },
  project_state: {
    good: project,
    wrong: [
      { ...project, state: "BUSY" },
      { ...project, last_seq: -1 },
      { ...project, epoch: "0123456789AB" },
      { ...project, secret: 1 },
      { ...project, created_at: "yesterday" },
    ],
  },
  user_message: { good: prompt, wrong: [{ ...prompt, prompt: null }, { prompt: "hello" }] },
  agent_message: { good: { type: "assistant", message: { content: [] } }, wrong: [{}, []] },
  permission_request: {
    good: permission,
    wrong: [
      { ...permission, kind: "other" },
      { ...permission, input: null },
    ],
  },
  permission_resolved: {
    good: { permission_id: id, decision: "withdrawn", reason: "the run was stopped" },
    wrong: [{ permission_id: id, decision: "maybe" }, { decision: "allow" }],
  },
  execution_queued: {
    good: { ...prompt, position: 1 },
    wrong: [{ position: 1 }, { execution_id: id }, { execution_id: id, position: -1 }],
  },
  execution_cancelled: {
    good: { execution_id: id, reason: "somebody took it back" },
    wrong: [{}, { execution_id: "1" }],
  },
  session_reset: {
    good: { previous_session_id: null },
    wrong: [{}, { previous_session_id: 1 }],
  },
  notice: { good: { code: "LOG_REPAIRED", message: "It was cut" }, wrong: [{ code: "X" }] },
  caught_up: { good: { seq: 0 }, wrong: [{}, { seq: "1" }, { seq: 1.5 }] },
  project_updated: { good: { ...project, state: "IDLE" }, wrong: [{ id }] },
  project_deleted: { good: {}, wrong: [{ project_id: id }] },
  server_stats: {
    good: {
      connections: 1,
      projects: 1,
      executions: { active: 0, queued: 0, total: 3, success: 2, failed: 1, avg_duration_ms: 50 },
      messages: { sent: 10, received: 5, rate_per_sec: 1.5 },
      uptime: 10,
    },
    wrong: [{ connections: 1 }],
  },
  server_shutdown: {
    good: { reason: "SIGTERM", deadline: timestamp },
    wrong: [{ reason: "SIGTERM" }, { reason: "SIGTERM", deadline: 1 }],
  },
  project_list_response: { good: { projects: [project] }, wrong: [{}, { projects: [{}] }] },
  project_joined: {
    good: { ...project, resume: "truncated", from: 11, permissions: [permission] },
    wrong: [project, { ...project, resume: "maybe", from: 0, permissions: [] }],
  },
  execution_status: {
    good: { execution_id: id, status: "queued", position: 2 },
    wrong: [{ execution_id: id }, { execution_id: id, status: "lost" }],
  },
  session_list_response: {
    good: {
      sessions: [
        {
          session_id: id,
          title: "A title",
          first_prompt: "hello",
          updated_at: timestamp,
          messages: 2,
          open_in_terminal: false,
        },
      ],
    },
    wrong: [{}, { sessions: [{ session_id: id }] }],
  },
  project_viewed: { good: { visible: true }, wrong: [{}, { visible: "yes" }] },
  push_key_response: {
    good: { public_key: `B${"A".repeat(86)}` },
    wrong: [{}, { public_key: "BA" }, { public_key: `B${"+".repeat(86)}` }],
  },
  push_subscribed: { good: {}, wrong: [{ endpoint: "https://example.com/" }] },
  push_unsubscribed: { good: {}, wrong: [{ endpoint: "https://example.com/" }] },
  project_left: { good: {}, wrong: [{ left: true }] },
  messages_response: {
    good: { messages: records, has_more: false },
    wrong: [{ messages: [] }, { messages: [{ ...records[0], seq: 0.5 }], has_more: false }],
  },
  health_status: { good: health, wrong: [{ ...health, status: "fine" }, { status: "healthy" }] },
  pong: { good: {}, wrong: [{ pong: true }] },
};

test.each(Object.entries(golden))(
  "a golden %s is within the contract, and passes untouched",
  (type, { good }) => {
    const { data } = rowOf(type);
    expect(v.parse(data, JSON.parse(JSON.stringify(good)))).toEqual(good);
  },
);

test.each(
  Object.entries(golden).flatMap(([type, { wrong }]) =>
    [null, "text", ...wrong].map((data) => [type, data] as const),
  ),
)("a %s with the data %j is not", (type, data) => {
  expect(v.safeParse(rowOf(type).data, data).success).toBe(false);
});

function rowOf(type: string): { readonly data: v.GenericSchema } {
  const rows: Readonly<Record<string, { readonly data: v.GenericSchema }>> = serverMessages;
  const row = rows[type];
  if (!row) throw new Error(`There is no message ${type}`);
  return row;
}
