/**
 * What people are told who do not look: one row per event. Titles and tags of what is sent, the
 * check of what is sent in tests and the README's table come from here.
 */
import * as v from "valibot";

interface Row {
  about: string;
  /** What the title says behind the project's name. */
  title: string;
  /** Somebody is waited for: it may make a sound, and goes before the rest. */
  urgent: boolean;
}

export const notificationEvents = {
  needs_input: {
    about: "The agent wants to use a tool, asks a question or has a plan, and waits",
    title: "needs you",
    urgent: true,
  },
  finished: {
    about: "A run ended well, and nothing more waits its turn in the project",
    title: "is done",
    urgent: false,
  },
  failed: {
    about: "A run ended badly, took too long, or went down with the server",
    title: "failed",
    urgent: false,
  },
} as const satisfies Record<string, Row>;

export type NotificationEvent = keyof typeof notificationEvents;

/** What a device or a webhook receives, as JSON. Says nothing of what people or the agent wrote. */
export const notification = v.strictObject({
  // The table is a constant, so its keys are exactly its names.
  event: v.picklist(Object.keys(notificationEvents) as NotificationEvent[]),
  project_id: v.pipe(v.string(), v.uuid()),
  /** The request that waits; of `needs_input` only. */
  permission_id: v.optional(v.pipe(v.string(), v.uuid())),
  title: v.string(),
  body: v.string(),
  /** What a tap opens, from the root of the server's own page. */
  url: v.pipe(v.string(), v.startsWith("/#/projects/")),
});
export type Notification = Readonly<v.InferOutput<typeof notification>>;
