import { isIPv6 } from "node:net";
import { reachableHosts } from "../access/pairing-offer.ts";
import { isLoopback } from "../config.ts";
import { type NotificationEvent, notificationEvents } from "../contract/notifications.ts";
import type { Config } from "../contract/options.ts";
import type { Target } from "./outbox.ts";

/** The emoji of each event, by the names that ntfy has for them. */
const tags = {
  needs_input: "raised_hand",
  finished: "white_check_mark",
  failed: "x",
} as const satisfies Record<NotificationEvent, string>;

/** A topic of an ntfy server (https://docs.ntfy.sh/publish/). */
export function ntfy(topic: string, config: Config): Target {
  const { notifyNtfyToken: token } = config;
  const origin = originOf(config);
  return {
    channel: "ntfy",
    compose: async ({ event, title, body, url }) => ({
      url: topic,
      headers: {
        title: headerText(title),
        priority: notificationEvents[event].urgent ? "high" : "default",
        tags: tags[event],
        ...(origin === undefined ? {} : { click: `${origin}${url}` }),
        ...(token === null ? {} : { authorization: `Bearer ${token}` }),
      },
      body,
    }),
  };
}

/**
 * Where a phone finds this server: by the first further name that it was given, else as a pairing
 * would show it. Undefined where only this machine could follow the link.
 */
function originOf(config: Config): string | undefined {
  const { allowedHosts, port, tlsEnabled } = config;
  const scheme = tlsEnabled ? "https" : "http";
  const [named] = allowedHosts ?? [];
  if (named !== undefined) return `${scheme}://${named}`;
  const [host] = reachableHosts(config);
  if (host === undefined || isLoopback(host) || port === 0) return undefined;
  return `${scheme}://${isIPv6(host) ? `[${host}]` : host}:${port}`;
}

/** Headers are ASCII; what is not is written as mail does it (RFC 2047), which ntfy reads. */
function headerText(text: string): string {
  if (/^[\x20-\x7e]*$/.test(text)) return text;
  return `=?UTF-8?B?${Buffer.from(text).toString("base64")}?=`;
}
