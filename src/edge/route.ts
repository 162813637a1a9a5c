import { Fault } from "../contract/errors.ts";
import {
  type ClientMessage,
  type ClientRow,
  type ClientType,
  clientMessages,
  type Scope,
} from "../contract/messages.ts";
import { encode } from "../core/frame.ts";
import type { Clock, Telemetry } from "../core/ports.ts";
import type { Connection } from "./connection.ts";
import {
  type Envelope,
  parseFrame,
  readEnvelope,
  readMessage,
  readType,
  requestIdOf,
  Unparsable,
} from "./decode.ts";
import { type HandlerContext, handlers, type Reply } from "./handlers.ts";

export interface RouteContext extends HandlerContext {
  readonly clock: Clock;
  readonly telemetry: Telemetry;
}

const rank = { none: 0, read: 1, approve: 2, full: 3 } as const satisfies Record<
  Scope | "none",
  number
>;

/**
 * The whole inbound path: frame, envelope, authority, data, handler, one reply. Every failure
 * becomes one error reply; this never rejects. Whoever may not send a message learns nothing
 * about its fields.
 */
export async function route(frame: string | Buffer, context: RouteContext): Promise<void> {
  const { connection, telemetry, clock } = context;
  let request_id: string | undefined;
  let project_id: string | undefined;
  let type = "unknown";
  let row: ClientRow | undefined;
  const begin = clock.monotonic();
  try {
    const fields = parse(frame, connection);
    request_id = requestIdOf(fields);
    const known = identify(fields, connection);
    type = known;
    row = clientMessages[known];
    telemetry.count("messages_total", { direction: "in", type });
    authenticated(known, connection);
    const envelope = readEnvelope(known, fields);
    ({ project_id } = envelope);
    authorize(envelope, connection);
    const reply = await dispatch(readMessage(envelope), context);
    // While it was handled its sender may have been shut out; then the answer is not for it.
    if (reply.closes === undefined) authenticated(known, connection);
    respond(reply, { request_id, project_id }, context);
  } catch (error) {
    if (type === "unknown") telemetry.count("messages_total", { direction: "in", type });
    const fault = error instanceof Fault ? error : unexpected(error, request_id, telemetry);
    telemetry.count("errors_total", { code: fault.code });
    connection.send("error", fault.data, { request_id, project_id });
    telemetry.log("debug", "request refused", { type, code: fault.code, project_id });
    if (fault.code === "FORBIDDEN" && connection.notesRefusal)
      context.audit("refusal", { type, project_id, reason: fault.message });
    const attempt = row?.scope === "none" && fault.code !== "INVALID_MESSAGE";
    if (attempt && connection.login?.failed()) connection.close(4401);
  }
  telemetry.log("debug", "request handled", {
    type,
    project_id,
    correlation_id: request_id,
    duration_ms: Math.round(clock.monotonic() - begin),
  });
}

function parse(frame: string | Buffer, connection: Connection) {
  try {
    const fields = parseFrame(frame);
    connection.parsed(true);
    return fields;
  } catch (error) {
    if (error instanceof Unparsable) connection.parsed(false);
    connection.take(1);
    throw error;
  }
}

/** What cannot be read costs as much as what can. */
function identify(fields: Readonly<Record<string, unknown>>, connection: Connection): ClientType {
  let cost = 1;
  try {
    const type = readType(fields);
    ({ cost } = clientMessages[type]);
    return type;
  } finally {
    if (cost > 0) connection.take(cost);
  }
}

/** Whoever has not logged in learns nothing but that. */
function authenticated(type: ClientType, { scope }: Connection): void {
  if (scope !== "none" || clientMessages[type].scope === "none") return;
  throw new Fault("UNAUTHORIZED", "Cannot take the request: log in first");
}

/** The one place that decides who may send what, by the row of the message and of its fields. */
function authorize({ type, data }: Envelope, { scope }: Connection): void {
  const row: ClientRow = clientMessages[type];
  if (rank[scope] < rank[row.scope])
    throw new Fault(
      "FORBIDDEN",
      `Cannot send ${type}: this device has the scope ${scope}, and it needs ${row.scope}`,
    );
  for (const [field, needed] of Object.entries(row.fields ?? {}))
    if (rank[scope] < rank[needed] && (data?.[field] ?? false) !== false)
      throw new Fault(
        "FORBIDDEN",
        `Cannot send ${type} with ${field}: this device has the scope ${scope}, and it needs ${needed}`,
      );
}

function dispatch(message: ClientMessage, context: HandlerContext): Reply | Promise<Reply> {
  // The one cast: each handler takes the message of its own row.
  return handlers[message.type](message as never, context);
}

function respond(
  reply: Reply,
  about: { request_id: string | undefined; project_id: string | undefined },
  { connection, clock }: RouteContext,
): void {
  const json = "json" in reply ? reply.json : JSON.stringify(reply.data);
  const timestamp = clock.now().toISOString();
  const project_id = reply.project_id ?? about.project_id;
  connection.sendFrame(encode(reply.type, json, { ...about, project_id, timestamp }));
  reply.after?.();
  if (reply.closes !== undefined) connection.close(reply.closes);
}

function unexpected(error: unknown, request_id: string | undefined, telemetry: Telemetry): Fault {
  const correlation_id = request_id ?? crypto.randomUUID();
  telemetry.log("error", "a request failed for a reason of ours", { correlation_id, error });
  return new Fault("INTERNAL_ERROR", "Cannot handle the request: the server failed", {
    correlation_id,
  });
}
