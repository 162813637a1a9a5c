import * as v from "valibot";
import { Fault } from "../contract/errors.ts";
import { type ClientMessage, type ClientType, clientMessages } from "../contract/messages.ts";

/** Levels of nesting that a frame may have; deeper ones are refused before they are parsed. */
const maxDepth = 32;
/** Characters of an id; ids come back in replies, and go to the log. */
const maxId = 128;

/** A frame that is no JSON object: ten of these in a row end a connection. */
export class Unparsable extends Fault {}

type Fields = Readonly<Record<string, unknown>>;

/** What can be told about a message before its data is looked at. */
export interface Envelope {
  readonly type: ClientType;
  readonly project_id: string | undefined;
  readonly request_id: string | undefined;
  readonly data: Fields | null;
}

/** Reads a frame as a JSON object, or throws Unparsable. */
export function parseFrame(frame: string | Buffer): Fields {
  if (typeof frame !== "string")
    throw new Unparsable("INVALID_MESSAGE", "Cannot read a binary frame: send JSON as text");
  if (!isShallow(frame))
    throw new Unparsable(
      "INVALID_MESSAGE",
      `Cannot read the frame: it is nested more than ${maxDepth} levels deep`,
    );
  const value = parseJson(frame);
  if (!isObject(value))
    throw new Unparsable("INVALID_MESSAGE", "Cannot read the frame: it is not a JSON object");
  return value;
}

/** The `request_id` of a frame, if one can be read, however wrong the rest of it is. */
export function requestIdOf({ request_id }: Fields): string | undefined {
  return isShort(request_id) && request_id !== "" ? request_id : undefined;
}

/** The type of a message, which says who may send it. */
export function readType({ type }: Fields): ClientType {
  if (typeof type !== "string") throw invalid("type", "it has no type");
  if (!isKnown(type)) throw invalid("type", `${quote(type.slice(0, 64))} is no message type`);
  return type;
}

/** Checks the envelope. `project_id` may stand on top level or inside `data`. */
export function readEnvelope(type: ClientType, frame: Fields): Envelope {
  const { request_id, data = null } = frame;
  if (request_id !== undefined && requestIdOf(frame) === undefined)
    throw invalid("request_id", `the request_id is not a string of 1 to ${maxId} characters`);
  if (data !== null && !isObject(data)) throw invalid("data", "its data is not an object");
  const { project_id: inner, ...rest } = data ?? {};
  const outer = frame["project_id"];
  if (outer !== undefined && inner !== undefined && outer !== inner)
    throw invalid("project_id", "it names two different projects");
  const project_id = outer ?? inner;
  if (project_id !== undefined && !isShort(project_id))
    throw invalid("project_id", `the project_id is not a string of at most ${maxId} characters`);
  if (clientMessages[type].project && !project_id)
    throw invalid("project_id", `${type} needs a project_id`);
  return { type, project_id, request_id: requestIdOf(frame), data: data === null ? null : rest };
}

/** Checks the data of a message whose sender may send it. */
export function readMessage(envelope: Envelope): ClientMessage {
  const { type, project_id, request_id } = envelope;
  // A message that needs data has its missing fields named rather than the lack of an object.
  const input = envelope.data ?? (v.is(clientMessages[type].data, null) ? null : {});
  const result = v.safeParse(clientMessages[type].data, input, { abortEarly: true });
  if (!result.success) throw invalidData(type, result.issues[0]);
  // The one cast: `data` was checked against the row that `type` names.
  return { type, project_id, request_id, data: result.output } as ClientMessage;
}

function invalidData(type: string, issue: v.BaseIssue<unknown>): Fault {
  const path = v.getDotPath(issue) ?? "data";
  const unknownKey = issue.type === "strict_object" && issue.expected === "never";
  const missing = issue.type === "strict_object" && issue.received === "undefined";
  const what = unknownKey
    ? `it has no field ${quote(path)}`
    : `${path}: ${missing ? "it is missing" : issue.message}`;
  return new Fault("INVALID_MESSAGE", `Cannot read ${type}: ${what}`, { path });
}

function invalid(path: string, what: string): Fault {
  return new Fault("INVALID_MESSAGE", `Cannot read the message: ${what}`, { path });
}

function isKnown(type: string): type is ClientType {
  return Object.hasOwn(clientMessages, type);
}

function isShort(id: unknown): id is string {
  return typeof id === "string" && id.length <= maxId;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Unparsable("INVALID_MESSAGE", "Cannot read the frame: it is not JSON");
  }
}

/** Counts brackets outside of strings; what is no JSON at all is left to the parser. */
function isShallow(text: string): boolean {
  let depth = 0;
  let inString = false;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (inString) {
      if (code === 0x5c) at += 1;
      else if (code === 0x22) inString = false;
    } else if (code === 0x22) inString = true;
    else if (code === 0x7b || code === 0x5b) {
      depth += 1;
      if (depth > maxDepth) return false;
    } else if (code === 0x7d || code === 0x5d) depth -= 1;
  }
  return true;
}

const quote = (text: string): string => JSON.stringify(text);
