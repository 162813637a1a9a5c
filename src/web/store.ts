import { computed, effect, signal } from "@preact/signals";
import { update } from "idb-keyval";
import type { ProjectState } from "../contract/messages.ts";
import { Conversation } from "./conversation.ts";
import {
  type Frame,
  Link,
  Refusal,
  type Reply,
  type RequestData,
  type RequestType,
} from "./link.ts";
import { Notifications } from "./notifications.ts";
import { Outbox, type Unsent } from "./outbox.ts";
import { place } from "./place.ts";
import { trouble } from "./trouble.tsx";

/** Everything the page knows, and the one way to ask the server for more. */
export class Store {
  readonly link = new Link();
  readonly outbox = new Outbox(this.link);
  readonly notifications = new Notifications(this.link);
  readonly projects = signal<ReadonlyMap<string, ProjectState>>(new Map());
  /** Whether the list was read; before that an empty one means nothing. */
  readonly loaded = signal(false);
  readonly conversation = signal<Conversation | undefined>(undefined);
  /** Prompts that were not taken, so that they can be mended. */
  readonly refused = signal<readonly Unsent[]>([]);
  /** Approvals first, then what works, then what was used last. */
  readonly ordered = computed(() =>
    [...this.projects.value.values()].toSorted(
      (a, b) => rank(a) - rank(b) || b.last_active.localeCompare(a.last_active),
    ),
  );
  readonly waiting = computed(() =>
    this.ordered.value.reduce((sum, project) => sum + project.pending_permissions, 0),
  );

  start(): void {
    this.link.onFrame = (frame) => this.#receive(frame);
    this.link.onIn = () => this.attempt(async () => await this.#entered());
    this.outbox.onRefused = async (unsent, why) => {
      trouble.value = why;
      // Kept behind what is being written there.
      await update<string>(draftName(unsent.projectId), (written = "") =>
        [written, unsent.prompt].filter((text) => text !== "").join("\n\n"),
      );
      this.refused.value = [...this.refused.value, unsent];
    };
    effect(() => {
      const { at } = this.link.standing.value;
      if (at !== "online") this.conversation.peek()?.lost();
    });
    effect(() => {
      const { project } = place.value;
      if (project !== undefined && this.loaded.value && !this.projects.peek().has(project)) {
        trouble.value = "That project is not there any more";
        location.replace("#/");
      } else this.#open(project);
    });
    effect(() => {
      const waiting = this.waiting.value;
      document.title = `${waiting > 0 ? `(${waiting}) ` : ""}Pocket Agent`;
    });
    this.attempt(async () => await this.outbox.load());
    this.attempt(async () => await this.notifications.install());
    document.addEventListener("visibilitychange", () => this.conversation.peek()?.look());
    this.link.start();
  }

  /** What this device may do. */
  may(scope: "approve" | "full"): boolean {
    const has = this.link.device.value?.scope ?? "full";
    return has === "full" || has === scope;
  }

  /** Asks for something; a refusal is shown, and then the answer is undefined. */
  async ask<T extends RequestType>(
    type: T,
    fields: { project?: string; data?: RequestData<T> } = {},
  ): Promise<Reply<T> | undefined> {
    try {
      return await this.link.request(type, fields);
    } catch (cause) {
      this.#failed(cause);
      return undefined;
    }
  }

  /** Does something of which a person should know if it fails. */
  attempt(work: () => Promise<void>): void {
    work().catch((cause: unknown) => this.#failed(cause));
  }

  #failed(cause: unknown): void {
    trouble.value = cause instanceof Error ? cause.message : String(cause);
    if (!(cause instanceof Refusal)) reportError(cause);
  }

  async #entered(): Promise<void> {
    const { projects } = await this.link.request("project_list");
    this.projects.value = new Map(projects.map((project) => [project.id, project]));
    this.loaded.value = true;
    const asked = place.peek().project;
    if (asked !== undefined && !this.projects.value.has(asked)) location.replace("#/");
    const conversation = this.conversation.peek();
    const { project } = place.peek();
    if (!conversation) this.#open(project);
    else if (this.projects.value.has(conversation.id)) await this.#join(conversation);
    else this.#open(undefined);
    await this.outbox.flush();
  }

  #receive(frame: Frame): void {
    const { type, project_id: id } = frame;
    // Not project_state: in a replay that is one of the past.
    if (type === "project_updated") {
      const state = frame.data as ProjectState;
      this.projects.value = new Map(this.projects.value).set(state.id, state);
    } else if (type === "project_deleted" && id) this.#gone(id);
    const conversation = this.conversation.peek();
    if (conversation && conversation.id === id) conversation.receive(frame);
  }

  #gone(id: string): void {
    const projects = new Map(this.projects.value);
    projects.delete(id);
    this.projects.value = projects;
    if (place.peek().project === id) location.hash = "#/";
  }

  /** Watches that project and no other. */
  #open(id: string | undefined): void {
    const now = this.conversation.peek();
    const state = id === undefined ? undefined : this.projects.peek().get(id);
    if (now && now.id === state?.id) return;
    now?.[Symbol.dispose]();
    const next = state && new Conversation(this.link, state);
    this.conversation.value = next;
    if (next) this.attempt(async () => await this.#join(next));
  }

  async #join(conversation: Conversation): Promise<void> {
    const state = this.projects.peek().get(conversation.id);
    await conversation.join(state?.last_seq ?? 0);
  }
}

/** Under which name the browser keeps what is being written in a project. */
export function draftName(projectId: string): string {
  return `draft ${projectId}`;
}

function rank({ pending_permissions: pending, state }: ProjectState): number {
  if (pending > 0) return 0;
  return state === "EXECUTING" ? 1 : 2;
}
