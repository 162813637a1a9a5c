/**
 * Every metric at `/metrics`, without the `pocket_agent_` that begins its name. Label names are
 * checked where a metric is used; a counter with known label values starts at 0 for each.
 */
import { errors } from "./errors.ts";

interface Row {
  kind: "counter" | "gauge" | "histogram";
  about: string;
  labels: readonly string[];
  buckets?: readonly number[];
  /** The values that one label can take, so that a series exists before it first counts. */
  values?: readonly string[];
}

export const metrics = {
  build_info: { kind: "gauge", about: "Always 1; the version is its label", labels: ["version"] },
  connections_active: { kind: "gauge", about: "Open WebSocket connections", labels: [] },
  connections_total: { kind: "counter", about: "WebSocket connections accepted", labels: [] },
  connections_refused_total: {
    kind: "counter",
    about: "Upgrades refused before they became connections",
    labels: ["reason"],
    values: ["host", "origin", "protocol", "rate", "limit"],
  },
  messages_total: {
    kind: "counter",
    about: "Frames received and sent; publishing counts once per subscriber",
    labels: ["direction", "type"],
  },
  errors_total: {
    kind: "counter",
    about: "Error replies and error events",
    labels: ["code"],
    values: Object.keys(errors),
  },
  projects_total: { kind: "gauge", about: "Projects", labels: [] },
  executions_active: { kind: "gauge", about: "Runs in progress", labels: [] },
  executions_total: {
    kind: "counter",
    about: "Runs ended",
    labels: ["outcome"],
    values: ["success", "failed", "timeout", "killed", "interrupted"],
  },
  execution_duration_seconds: {
    kind: "histogram",
    about: "Time from the acceptance of a prompt to its end",
    labels: ["outcome"],
    buckets: [1, 5, 15, 60, 300, 1800],
  },
  execution_cost_usd_total: { kind: "counter", about: "Cost as the agent states it", labels: [] },
  execution_tokens_total: {
    kind: "counter",
    about: "Tokens as the agent states them",
    labels: ["direction"],
    values: ["input", "output"],
  },
  queue_length: { kind: "gauge", about: "Prompts that wait their turn", labels: [] },
  permissions_pending: {
    kind: "gauge",
    about: "Permission requests without an answer",
    labels: [],
  },
  permissions_total: {
    kind: "counter",
    about: "Permission requests resolved",
    labels: ["decision"],
    values: ["allow", "deny", "withdrawn"],
  },
  permission_wait_seconds: {
    kind: "histogram",
    about: "Time a permission request waited for its answer",
    labels: [],
    buckets: [1, 5, 15, 60, 300, 3600],
  },
  notifications_total: {
    kind: "counter",
    about:
      "Notifications by channel (webpush, webhook, ntfy): sent, failed, dropped unsent, or gone with the subscription",
    labels: ["channel", "outcome"],
  },
  processes_warm: { kind: "gauge", about: "Idle agents that wait for a next prompt", labels: [] },
  warm_hits_total: { kind: "counter", about: "Prompts taken by a warm agent", labels: [] },
  warm_misses_total: {
    kind: "counter",
    about: "Prompts for which an agent had to be started",
    labels: [],
  },
  warm_evictions_total: {
    kind: "counter",
    about: "Warm agents ended to make room for another",
    labels: [],
  },
  processes_swept_total: {
    kind: "counter",
    about: "Processes that had to be killed after their run was over",
    labels: [],
  },
  log_bytes_total: { kind: "counter", about: "Bytes appended to message logs", labels: [] },
  log_errors_total: {
    kind: "counter",
    about: "Failed operations on message logs",
    labels: ["operation"],
    values: ["append", "sync", "read", "repair"],
  },
  log_sync_seconds: {
    kind: "histogram",
    about: "Time one sync of a message log took",
    labels: [],
    buckets: [0.0005, 0.002, 0.01, 0.05, 0.25, 1],
  },
  replay_events_total: { kind: "counter", about: "Events sent from the log", labels: [] },
  slow_subscribers_total: {
    kind: "counter",
    about: "Subscribers moved from live back to the log",
    labels: [],
  },
  unhandled_errors_total: { kind: "counter", about: "Errors that nobody caught", labels: [] },
  event_loop_lag_seconds: { kind: "gauge", about: "Event loop delay, p99 of 10 s", labels: [] },
  memory_bytes: { kind: "gauge", about: "Resident memory of the server", labels: [] },
} as const satisfies Record<string, Row>;

type MetricName = keyof typeof metrics;
export type Labels<M extends MetricName> = Record<(typeof metrics)[M]["labels"][number], string>;
type NamesOf<K extends Row["kind"]> = {
  [M in MetricName]: (typeof metrics)[M]["kind"] extends K ? M : never;
}[MetricName];
export type CounterName = NamesOf<"counter">;
export type GaugeName = NamesOf<"gauge">;
export type HistogramName = NamesOf<"histogram">;
