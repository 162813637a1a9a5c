import type { ServerType } from "../contract/messages.ts";
import type { LogRecord } from "./ports.ts";

/** A frame as it goes over the wire, and what it is, for the counters. */
export interface Frame {
  readonly type: ServerType;
  readonly text: string;
}

interface Heading {
  readonly project_id?: string | undefined;
  readonly request_id?: string | undefined;
  readonly seq?: number | undefined;
  readonly timestamp: string;
}

/** `data` is JSON text, so that what the agent printed passes untouched. */
export function encode(type: ServerType, data: string, heading: Heading): Frame {
  const { project_id, request_id, seq, timestamp } = heading;
  let text = `{"type":"${type}"`;
  if (project_id !== undefined) text += `,"project_id":${JSON.stringify(project_id)}`;
  if (request_id !== undefined) text += `,"request_id":${JSON.stringify(request_id)}`;
  if (seq !== undefined) text += `,"seq":${seq}`;
  return { type, text: `${text},"timestamp":"${timestamp}","data":${data}}` };
}

/** The event that a logged record was, or is, to the subscribers of its project. */
export function frameOf(project_id: string, record: LogRecord): Frame {
  const heading = { project_id, seq: record.seq, timestamp: record.timestamp };
  if (record.direction === "claude") return encode("agent_message", record.message, heading);
  // The one cast: the record was written by `Feed`, from these very types.
  const message = JSON.parse(record.message) as { type: ServerType; data: object };
  const type = record.direction === "client" ? "user_message" : message.type;
  return encode(type, JSON.stringify(message.data), heading);
}
