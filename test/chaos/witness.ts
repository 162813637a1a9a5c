import type { Frame } from "../support/client.ts";

/** What one client has seen of one project. */
interface Seen {
  epoch: string;
  last: number;
  /** What each event said, by its number. */
  readonly events: Map<number, string>;
}

interface Joined {
  readonly epoch: string;
  readonly resume: string;
}

/** Watches what a client receives over all its connections, and notes whatever is not right. */
export class Witness {
  readonly name: string;
  readonly anomalies: string[] = [];
  readonly projects = new Map<string, Seen>();
  /** Drops every so many frames, as a broken server would: then there must be anomalies. */
  readonly #dropEvery: number;
  #frames = 0;

  constructor(name: string, dropEvery: number) {
    this.name = name;
    this.#dropEvery = dropEvery;
  }

  /** Where to go on in a project. */
  place(projectId: string): { after_seq: number; epoch?: string } {
    const seen = this.projects.get(projectId);
    return seen ? { after_seq: seen.last, epoch: seen.epoch } : { after_seq: 0 };
  }

  /** The answer to a join: a plain kill never takes anything that was seen. */
  joined(projectId: string, { epoch, resume }: Joined): void {
    const seen = this.projects.get(projectId);
    if (!seen) {
      this.projects.set(projectId, { epoch, last: 0, events: new Map() });
      return;
    }
    if (resume !== "ok" || seen.epoch !== epoch) this.#note(`${projectId} resumed with ${resume}`);
  }

  event(frame: Frame): void {
    const { project_id: projectId = "", seq = 0 } = frame;
    const seen = this.projects.get(projectId);
    if (!seen || seq === 0) return;
    this.#frames += 1;
    if (this.#dropEvery > 0 && this.#frames % this.#dropEvery === 0) return;
    if (seq !== seen.last + 1) this.#note(`${projectId} ${seq} came after ${seen.last}`);
    seen.last = seq;
    seen.events.set(seq, JSON.stringify(frame.data));
  }

  #note(what: string): void {
    this.anomalies.push(`${this.name}: ${what}`);
  }
}
