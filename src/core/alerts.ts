import {
  type Notification,
  type NotificationEvent,
  notificationEvents,
} from "../contract/notifications.ts";
import type { PermissionRequest } from "../contract/messages.ts";
import type { Feed } from "./feed.ts";
import type { Notifications } from "./ports.ts";
import type { Outcome } from "./run.ts";

/** How a run ended that no person has ended, in words that give nothing away. */
const endings = {
  success: { event: "finished", body: "The run is finished" },
  failed: { event: "failed", body: "The run ended with an error" },
  timeout: { event: "failed", body: "The run took too long and was stopped" },
  interrupted: { event: "failed", body: "The server stopped before the run had ended" },
  killed: undefined,
} as const satisfies Record<Outcome, { event: NotificationEvent; body: string } | undefined>;

/**
 * Decides what people are told who do not look at a project: nothing while anybody does. The text
 * leaves the machine, and so has the name of the directory in it and of a tool, nothing else.
 */
export class Alerts {
  readonly #feed: Feed;
  readonly #name: string;
  readonly #notifications: Notifications;

  constructor(feed: Feed, path: string, notifications: Notifications) {
    this.#feed = feed;
    this.#name = nameOf(path);
    this.#notifications = notifications;
  }

  /** The agent asks. */
  asked({ permission_id, kind, tool_name }: PermissionRequest): void {
    const bodies = {
      tool: `The agent wants to use ${labelOf(tool_name)}`,
      question: "The agent asks a question",
      plan: "The agent has a plan",
    };
    this.#tell("needs_input", bodies[kind], permission_id);
  }

  /**
   * A run ended. `goesOn` is whether the project's queue has more: then the work that somebody
   * waits for is not done, while a failure may be a reason to step in.
   */
  ended(outcome: Outcome, goesOn: boolean): void {
    const ending = endings[outcome];
    if (!ending || (ending.event === "finished" && goesOn)) return;
    this.#tell(ending.event, ending.body);
  }

  #tell(event: NotificationEvent, body: string, permission_id?: string): void {
    if (this.#feed.inView) return;
    const { projectId: project_id } = this.#feed;
    const card = permission_id === undefined ? "" : `/${permission_id}`;
    const told: Notification = {
      event,
      project_id,
      ...(permission_id === undefined ? {} : { permission_id }),
      title: `${this.#name} ${notificationEvents[event].title}`,
      body,
      url: `/#/projects/${project_id}${card}`,
    };
    this.#notifications.send(told);
  }
}

/** A directory's own name, without what could pass for something else on a lock screen. */
function nameOf(path: string): string {
  const last = path.slice(path.lastIndexOf("/") + 1).replaceAll(/\p{C}/gu, "");
  const [short = ""] = /^.{0,80}/su.exec(last.trim()) ?? [];
  return short === "" ? "A project" : short;
}

/** The name of a tool may come from a program that the project brought; only a plain one is shown. */
function labelOf(tool: string): string {
  return /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/.test(tool) ? tool : "a tool";
}
