import { version } from "../version.ts";
import type { Target } from "./outbox.ts";

/** A program of the owner's that gets each notification as JSON. */
export function webhook(url: string): Target {
  const headers = {
    "content-type": "application/json",
    "user-agent": `pocket-agent-server/${version}`,
  };
  return {
    channel: "webhook",
    compose: async (notification) => ({ url, headers, body: JSON.stringify(notification) }),
  };
}
