import { signal } from "@preact/signals";
import { get, update } from "idb-keyval";
import { type Link, Refusal } from "./link.ts";
import type { Picture } from "./picture.ts";

const stored = "outbox";
/** What goes away by itself; anything else is an answer. */
const transient: ReadonlySet<string> = new Set([
  "OFFLINE",
  "RATE_LIMITED",
  "SERVER_SHUTDOWN",
  "UNAUTHORIZED",
]);

const laterMs = 2_000;

/** A prompt that the server has not taken yet. */
export interface Unsent {
  /** By which the server knows it again: it is run once, however often it is sent. */
  readonly executionId: string;
  readonly projectId: string;
  readonly prompt: string;
  readonly images: readonly Picture[];
}

/** Prompts on their way, kept through reloads until the server says that it has them. */
export class Outbox {
  readonly unsent = signal<readonly Unsent[]>([]);
  /** Called with a prompt that the server does not take, and why. */
  onRefused: (unsent: Unsent, why: string) => Promise<void> = async () => {};
  readonly #link: Link;
  #sending = false;

  constructor(link: Link) {
    this.#link = link;
  }

  /** Reads what an earlier visit or another page of this browser left. */
  async load(): Promise<void> {
    this.unsent.value = (await get<readonly Unsent[]>(stored)) ?? [];
  }

  async add(unsent: Omit<Unsent, "executionId">): Promise<void> {
    const added = { ...unsent, executionId: uuid() };
    await this.#change((all) => [...all, added]);
    await this.flush();
  }

  /** Takes a prompt back that waits for a connection. */
  async remove(executionId: string): Promise<void> {
    await this.#change((all) => all.filter((unsent) => unsent.executionId !== executionId));
  }

  /** What is stored is what there is: several pages share it, and each reads what it became. */
  async #change(change: (all: readonly Unsent[]) => readonly Unsent[]): Promise<void> {
    await update<readonly Unsent[]>(stored, (all = []) => change(all));
    await this.load();
  }

  /** Sends what there is, in order. */
  async flush(): Promise<void> {
    if (this.#sending) return;
    this.#sending = true;
    try {
      await this.load();
      for (;;) {
        const [next] = this.unsent.value;
        // Each waits for the answer to the one before it: they are to run in this order.
        // oxlint-disable-next-line no-await-in-loop
        if (!next || !(await this.#send(next))) return;
        // oxlint-disable-next-line no-await-in-loop
        await this.remove(next.executionId);
      }
    } finally {
      this.#sending = false;
    }
  }

  /** Whether the server has answered. */
  async #send(unsent: Unsent): Promise<boolean> {
    const { executionId: execution_id, projectId: project, prompt } = unsent;
    const images = unsent.images.map(({ mediaType, data }) => ({ media_type: mediaType, data }));
    const data = { prompt, execution_id, queue: true, ...(images.length > 0 && { images }) };
    try {
      await this.#link.request("execute", { project, data });
    } catch (cause) {
      if (!(cause instanceof Refusal)) throw cause;
      // What the connection brought down is what was on it: sent again it would be so for ever.
      if (cause.tooLarge) return await this.#refuse(unsent, "it is larger than the server takes");
      if (cause.code !== "OFFLINE" && transient.has(cause.code))
        setTimeout(() => void this.flush(), laterMs);
      if (transient.has(cause.code)) return false;
      await this.onRefused(unsent, cause.message);
    }
    return true;
  }

  async #refuse(unsent: Unsent, why: string): Promise<true> {
    await this.onRefused(unsent, `Cannot send that prompt: ${why}`);
    return true;
  }
}

/** Random, version 4; `crypto.randomUUID` is missing where the page came over plain HTTP. */
function uuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
