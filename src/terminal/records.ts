import type { ServerData } from "../contract/messages.ts";
import type { Frame } from "./wire.ts";

/** An event as the history has it. */
export type Record = ServerData<"messages_response">["messages"][number];

/** A record as the event that it was. */
export function frameOf({ seq, timestamp, direction, message }: Record): Frame {
  const about = { seq, timestamp };
  if (direction === "client") return { type: "user_message", data: message.data, ...about };
  if (direction === "claude") return { type: "agent_message", data: message, ...about };
  // The one cast: what the server has logged is one of its own events.
  return { ...message, ...about } as Frame;
}

/** An event as the history will have it; undefined for what is not kept. */
export function recordOf({ type, seq, timestamp, data }: Frame): Record | undefined {
  if (seq === undefined) return undefined;
  const about = { seq, timestamp };
  if (type === "user_message")
    return { ...about, direction: "client", message: { type: "execute", data } };
  if (type === "agent_message") return { ...about, direction: "claude", message: data };
  return { ...about, direction: "server", message: { type, data } };
}
