/**
 * Every setting: one row each. The Config type, YAML file, environment, flags, `--help` and the
 * README table are all read from these rows. Precedence: flag, environment, file, default.
 */
import * as v from "valibot";
import { model, permissionModes, toolRule } from "./agent-options.ts";

const scalar = v.union([v.string(), v.number(), v.boolean()], "Expected one value");
const text = v.pipe(scalar, v.transform(String), v.nonEmpty("Expected a value"));
const boolean = v.pipe(
  scalar,
  v.transform((input) => String(input).toLowerCase()),
  v.picklist(["true", "false"], "Expected true or false"),
  v.transform((input) => input === "true"),
);
const count = v.pipe(
  scalar,
  v.transform((input) => (String(input).trim() === "" ? Number.NaN : Number(input))),
  v.number("Expected a whole number"),
  v.safeInteger("Expected a whole number"),
  v.minValue(0, "Expected 0 or more"),
);
const atLeast = (least: number) => v.pipe(count, v.minValue(least, `Expected ${least} or more`));

/** An amount with a unit, such as `30s`; without one it counts in the unit worth 1. */
function amount(units: Readonly<Record<string, number>>, example: string) {
  const shape = new RegExp(`^(\\d+(?:\\.\\d+)?)\\s*(${Object.keys(units).join("|")})?$`, "i");
  const parse = (input: string | number | boolean): number => {
    const [, digits, unit = ""] = shape.exec(String(input).trim()) ?? [];
    const factor = unit === "" ? 1 : (units[unit.toLowerCase()] ?? Number.NaN);
    return Math.round(Number(digits) * factor);
  };
  return v.pipe(scalar, v.transform(parse), v.number(`Expected ${example}`), v.safeInteger());
}
const duration = amount(
  { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 },
  "a duration such as 500ms, 30s, 5m or 1h",
);
const bytes = amount(
  { b: 1, kb: 1_024, mb: 1_048_576, gb: 1_073_741_824 },
  "a size such as 1048576 or 1MB",
);

/** Commas separate, but not inside parentheses: `Bash(git log:*, git diff:*),Read`. */
function splitList(input: string): string[] {
  const parts = [""];
  let depth = 0;
  for (const character of input) {
    if (character === "(") depth += 1;
    if (character === ")") depth -= 1;
    if (character === "," && depth <= 0) parts.push("");
    else parts[parts.length - 1] += character;
  }
  return parts.map((part) => part.trim()).filter((part) => part !== "");
}
const listOf = <S extends v.GenericSchema<string, string>>(item: S) =>
  v.pipe(
    v.union([v.pipe(v.string(), v.transform(splitList)), v.array(v.string())], "Expected a list"),
    v.array(item),
  );

const webAddress = v.pipe(
  text,
  v.check(
    (address) => /^https?:$/.test(URL.parse(address)?.protocol ?? ""),
    "Expected an http or https address",
  ),
);

export interface OptionRow {
  file: string;
  env: string;
  type: v.GenericSchema;
  /** Its value is never shown, only that there is one. */
  secret?: true;
  /** As somebody would write it; `null` means unset. */
  default: string | number | boolean | null;
  about: string;
}

export const options = {
  host: {
    file: "server.host",
    env: "PA_SERVER_HOST",
    type: text,
    default: "0.0.0.0",
    about: "Address to listen on",
  },
  port: {
    file: "server.port",
    env: "PA_SERVER_PORT",
    type: v.pipe(count, v.maxValue(65_535, "Expected at most 65535")),
    default: 8443,
    about: "Port to listen on; 0 takes a free one",
  },
  allowedHosts: {
    file: "server.allowed_hosts",
    env: "PA_SERVER_ALLOWED_HOSTS",
    type: v.nullable(listOf(v.string())),
    default: null,
    about: "Further names, with ports, that clients may know the server by; a proxy's, for one",
  },
  allowedOrigins: {
    file: "server.allowed_origins",
    env: "PA_SERVER_ALLOWED_ORIGINS",
    type: v.nullable(listOf(v.string())),
    default: null,
    about: "Origins of web pages that may connect besides the server's own",
  },
  trustedProxies: {
    file: "server.trusted_proxies",
    env: "PA_SERVER_TRUSTED_PROXIES",
    type: v.nullable(listOf(v.string())),
    default: null,
    about: "Addresses of proxies whose X-Forwarded-For is believed",
  },
  tlsEnabled: {
    file: "server.tls.enabled",
    env: "PA_TLS_ENABLED",
    type: boolean,
    default: true,
    about: "Serve wss and https; without it only loopback is served, unless insecure",
  },
  tlsCert: {
    file: "server.tls.cert",
    env: "PA_TLS_CERT",
    type: v.nullable(text),
    default: null,
    about: "PEM file of the certificate and what it needs; one is made if unset",
  },
  tlsKey: {
    file: "server.tls.key",
    env: "PA_TLS_KEY",
    type: v.nullable(text),
    default: null,
    about: "PEM file of that certificate's key",
  },
  tlsMinVersion: {
    file: "server.tls.min_version",
    env: "PA_SERVER_TLS_MIN_VERSION",
    type: v.pipe(text, v.picklist(["1.2", "1.3"], "Expected 1.2 or 1.3")),
    default: "1.2",
    about: "Oldest version of TLS that is spoken",
  },
  authMode: {
    file: "auth.mode",
    env: "PA_AUTH_MODE",
    type: v.picklist(["ssh", "none"], "Expected ssh or none"),
    default: "ssh",
    about:
      "How clients prove who they are: ssh is keys, paired devices and tokens; none lets everybody in, and needs insecure",
  },
  authTimeout: {
    file: "auth.timeout",
    env: "PA_AUTH_TIMEOUT",
    type: v.pipe(duration, v.minValue(100, "Expected at least 100ms")),
    default: "30s",
    about: "Time a client may take to log in before it is closed 4401",
  },
  authorizedKeys: {
    file: "auth.authorized_keys",
    env: "PA_AUTH_AUTHORIZED_KEYS",
    type: v.nullable(listOf(v.pipe(v.string(), v.startsWith("/", "Expected absolute paths")))),
    default: null,
    about:
      "Files of authorized keys besides authorized_keys in data.dir; each key has the scope full",
  },
  insecure: {
    file: "insecure",
    env: "PA_INSECURE",
    type: boolean,
    default: false,
    about: "Accept the risk of auth.mode none, or of an address in the network without TLS",
  },
  dataDir: {
    file: "data.dir",
    env: "PA_DATA_DIR",
    type: text,
    default: "$DATA_HOME/pocket-agent",
    about:
      "Where projects and logs are kept; $DATA_HOME is $XDG_DATA_HOME or ~/.local/share, on macOS ~/Library/Application Support",
  },
  projectRoots: {
    file: "projects.roots",
    env: "PA_PROJECTS_ROOTS",
    type: v.nullable(listOf(v.pipe(v.string(), v.startsWith("/", "Expected absolute paths")))),
    default: null,
    about: "Directories that projects must lie inside of; anywhere if unset",
  },
  logLevel: {
    file: "logging.level",
    env: "PA_LOG_LEVEL",
    type: v.picklist(["debug", "info", "warn", "error"], "Expected debug, info, warn or error"),
    default: "info",
    about: "Least severe line to log",
  },
  logFormat: {
    file: "logging.format",
    env: "PA_LOG_FORMAT",
    type: v.picklist(["json", "text"], "Expected json or text"),
    default: "json",
    about: "How log lines are written",
  },
  logOutput: {
    file: "logging.output",
    env: "PA_LOG_OUTPUT",
    type: text,
    default: "stdout",
    about: "Where log lines go: stdout, stderr or a path, of which five full files are kept",
  },
  maxConnections: {
    file: "limits.max_connections",
    env: "PA_MAX_CONNECTIONS",
    type: atLeast(1),
    default: 100,
    about: "WebSocket connections at the same time",
  },
  maxProjects: {
    file: "limits.max_projects",
    env: "PA_MAX_PROJECTS",
    type: atLeast(1),
    default: 100,
    about: "Projects",
  },
  messageSize: {
    file: "limits.message_size",
    env: "PA_MESSAGE_SIZE_LIMIT",
    type: v.pipe(bytes, v.minValue(1024, "Expected at least 1024")),
    default: 1_048_576,
    about: "Largest frame a client may send, in bytes; larger ones close 1009",
  },
  connectionRate: {
    file: "limits.connection_rate",
    env: "PA_CONNECTION_RATE",
    type: atLeast(1),
    default: 10,
    about: "New connections per second and address",
  },
  messageRate: {
    file: "limits.message_rate",
    env: "PA_LIMITS_MESSAGE_RATE",
    type: atLeast(1),
    default: 50,
    about: "Requests per second and connection, with twice as many in a burst",
  },
  executeRate: {
    file: "limits.execute_rate",
    env: "PA_LIMITS_EXECUTE_RATE",
    type: atLeast(1),
    default: 60,
    about: "Accepted prompts per minute and project, with half as many in a burst",
  },
  minFreeDisk: {
    file: "limits.min_free_disk",
    env: "PA_LIMITS_MIN_FREE_DISK",
    type: bytes,
    default: "256MB",
    about: "Free disk space below which no prompt is accepted",
  },
  executionTimeout: {
    file: "timeouts.execution",
    env: "PA_EXECUTION_TIMEOUT",
    type: duration,
    default: "5m",
    about: "Time a run may go without any output; 0 is without limit",
  },
  executionTotalTimeout: {
    file: "timeouts.execution_total",
    env: "PA_TIMEOUTS_EXECUTION_TOTAL",
    type: duration,
    default: "0s",
    about: "Time a run may take in all; 0 is without limit",
  },
  idleTimeout: {
    file: "timeouts.idle",
    env: "PA_IDLE_TIMEOUT",
    type: duration,
    default: "5m",
    about: "Time a connection may send nothing, not even a pong, before it is closed 4408",
  },
  pingInterval: {
    file: "timeouts.ping_interval",
    env: "PA_PING_INTERVAL",
    type: v.pipe(duration, v.minValue(100, "Expected at least 100ms")),
    default: "30s",
    about: "Time between pings",
  },
  pongTimeout: {
    file: "timeouts.pong_timeout",
    env: "PA_PONG_TIMEOUT",
    type: v.pipe(duration, v.minValue(100, "Expected at least 100ms")),
    default: "30s",
    about: "Time a pong may take before the connection is closed 4408",
  },
  stallTimeout: {
    file: "timeouts.stall",
    env: "PA_TIMEOUTS_STALL",
    type: v.pipe(duration, v.minValue(100, "Expected at least 100ms")),
    default: "60s",
    about: "Time a client may read nothing of what waits for it before it is closed 4408",
  },
  shutdownTimeout: {
    file: "timeouts.shutdown",
    env: "PA_TIMEOUTS_SHUTDOWN",
    type: duration,
    default: "30s",
    about: "Time that runs get to end by themselves when the server is stopped",
  },
  maxConcurrent: {
    file: "execution.max_concurrent",
    env: "PA_EXECUTION_MAX_CONCURRENT",
    type: atLeast(1),
    default: 10,
    about: "Runs at the same time; further prompts are queued",
  },
  queueSize: {
    file: "execution.queue_size",
    env: "PA_EXECUTION_QUEUE_SIZE",
    type: count,
    default: 100,
    about: "Prompts that wait their turn, in all projects",
  },
  permissionTimeout: {
    file: "execution.permission_timeout",
    env: "PA_EXECUTION_PERMISSION_TIMEOUT",
    type: duration,
    default: "0s",
    about: "Time after which an unanswered permission request is denied; 0 waits without limit",
  },
  logRotationSize: {
    file: "log_rotation.size",
    env: "PA_LOG_ROTATION_SIZE",
    type: v.pipe(bytes, v.minValue(1024, "Expected at least 1024")),
    default: 104_857_600,
    about: "Bytes after which a project's log, the audit log or a log file begins a new file",
  },
  logRotationCount: {
    file: "log_rotation.count",
    env: "PA_LOG_ROTATION_COUNT",
    type: atLeast(1),
    default: 10_000,
    about: "Messages after which a project's log begins a new file",
  },
  logKeepDays: {
    file: "log_rotation.keep_days",
    env: "PA_LOG_ROTATION_KEEP_DAYS",
    type: count,
    default: 0,
    about: "Days that full log files are kept; 0 keeps them for ever",
  },
  notifyWebhook: {
    file: "notify.webhook",
    env: "PA_NOTIFY_WEBHOOK",
    type: v.nullable(webAddress),
    secret: true,
    default: null,
    about: "Address that gets each notification as JSON, by POST",
  },
  notifyNtfy: {
    file: "notify.ntfy",
    env: "PA_NOTIFY_NTFY",
    type: v.nullable(
      v.pipe(
        webAddress,
        v.check(
          (address) => URL.parse(address)?.pathname !== "/",
          "Expected an address with a topic",
        ),
      ),
    ),
    secret: true,
    default: null,
    about: "Topic of an ntfy server that gets each notification, such as https://ntfy.sh/TOPIC",
  },
  notifyNtfyToken: {
    file: "notify.ntfy_token",
    env: "PA_NOTIFY_NTFY_TOKEN",
    type: v.nullable(v.pipe(text, v.regex(/^[\x21-\x7e]+$/, "Expected a token without spaces"))),
    secret: true,
    default: null,
    about: "Access token for that topic, if it needs one",
  },
  notifyTimeout: {
    file: "notify.timeout",
    env: "PA_NOTIFY_TIMEOUT",
    type: v.pipe(duration, v.minValue(100, "Expected at least 100ms")),
    default: "10s",
    about: "Time that one attempt to deliver a notification may take; there are four",
  },
  notifyPushServices: {
    file: "notify.push_services",
    env: "PA_NOTIFY_PUSH_SERVICES",
    type: v.nullable(
      listOf(
        v.pipe(
          v.string(),
          v.toLowerCase(),
          v.regex(
            /^(\*\.)?[a-z0-9.-]+(:\d+)?$/,
            "Expected host names, with ports unless they are 443; *. stands for all below",
          ),
        ),
      ),
    ),
    default: null,
    about: "Hosts of Web Push services besides those of the usual browsers",
  },
  notifyPushContact: {
    file: "notify.push_contact",
    env: "PA_NOTIFY_PUSH_CONTACT",
    type: v.pipe(
      text,
      v.regex(/^(mailto:[^\s@<>]+@|https:\/\/)[^\s@<>]+$/, "Expected mailto:… or https://…"),
    ),
    default: "mailto:pocket-agent@example.com",
    about: "Whom a push service may write to (VAPID); Apple refuses names that are not public",
  },
  claudeBinary: {
    file: "claude.binary",
    env: "PA_CLAUDE_BINARY",
    type: text,
    default: "claude",
    about: "The claude CLI: a path, or a name looked up in PATH",
  },
  claudeModel: {
    file: "claude.default_model",
    env: "PA_CLAUDE_MODEL",
    type: v.nullable(model),
    default: null,
    about: "Model of runs that name none; the CLI's own default if unset",
  },
  claudePermissionMode: {
    file: "claude.permission_mode",
    env: "PA_CLAUDE_PERMISSION_MODE",
    type: v.picklist(permissionModes, `Expected ${permissionModes.join(", ")}`),
    default: "default",
    about: "Permission mode of runs that name none",
  },
  claudeAllowedTools: {
    file: "claude.allowed_tools",
    env: "PA_CLAUDE_ALLOWED_TOOLS",
    type: v.nullable(listOf(toolRule)),
    default: null,
    about: "Tool rules allowed in runs that name none",
  },
  claudeAllowBypass: {
    file: "claude.allow_bypass",
    env: "PA_CLAUDE_ALLOW_BYPASS",
    type: boolean,
    default: false,
    about:
      "Let clients ask for bypassPermissions, auto and dangerously_skip_permissions; guards against accidents, not against a client that may execute",
  },
  claudeAllowMcpConfig: {
    file: "claude.allow_mcp_config",
    env: "PA_CLAUDE_ALLOW_MCP_CONFIG",
    type: boolean,
    default: false,
    about: "Let clients send mcp_config, which starts programs",
  },
  claudeEnv: {
    file: "claude.env",
    env: "PA_CLAUDE_ENV",
    type: v.nullable(
      listOf(v.pipe(v.string(), v.regex(/^[A-Za-z_][A-Za-z0-9_]*=/, "Expected NAME=value"))),
    ),
    secret: true,
    default: null,
    about: "Environment variables for the agent, as NAME=value",
  },
  claudeIdleTimeout: {
    file: "claude.idle_timeout",
    env: "PA_CLAUDE_IDLE_TIMEOUT",
    type: duration,
    default: "60s",
    about: "Time an agent stays warm after a run, for the next prompt; 0 ends it at once",
  },
  claudeMaxWarm: {
    file: "claude.max_warm",
    env: "PA_CLAUDE_MAX_WARM",
    type: count,
    default: 4,
    about: "Agents that stay warm at the same time, at about 130 MB each",
  },
  claudeSshAgent: {
    file: "claude.ssh_agent",
    env: "PA_CLAUDE_SSH_AGENT",
    type: boolean,
    default: true,
    about: "Let the agent use the server's SSH_AUTH_SOCK",
  },
  wsCompression: {
    file: "websocket.enable_compression",
    env: "PA_WS_COMPRESSION",
    type: boolean,
    default: false,
    about: "Compress frames; costs 20 to 60 times the processor time for each subscriber",
  },
} as const satisfies Record<string, OptionRow>;

export type OptionName = keyof typeof options;
export type Config = { readonly [K in OptionName]: v.InferOutput<(typeof options)[K]["type"]> };

/** `executionTimeout` is spelled `--execution-timeout` on the command line. */
export const flagOf = (name: string): string =>
  name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
