import { Continuity } from "../support/continuity.ts";
import type { Anomalies } from "./anomalies.ts";

interface EventFrame {
  readonly type: string;
  readonly seq: number;
  readonly timestamp: string;
  readonly data: unknown;
}

/** What an event says, short enough to keep of all of them. */
export function fingerprint({ type, timestamp, data }: Omit<EventFrame, "seq">): string {
  return Bun.hash(`${type} ${timestamp} ${JSON.stringify(data)}`).toString(36);
}

/** What all clients together have seen of a project: by number, the same for everybody. */
export type Seen = Map<number, string>;

/** One client's copy of a project's events, kept over all its connections. */
export class Mirror {
  readonly project: string;
  epoch: string | undefined;
  caughtUp = false;
  readonly #continuity: Continuity;
  readonly #seen: Seen;
  readonly #anomalies: Anomalies;
  #faults = 0;

  constructor(project: string, { seen, anomalies }: { seen: Seen; anomalies: Anomalies }) {
    this.project = project;
    this.#continuity = new Continuity(project);
    this.#seen = seen;
    this.#anomalies = anomalies;
  }

  get seq(): number {
    return this.#continuity.seq;
  }

  get events(): number {
    return this.#continuity.events;
  }

  /** How it asks to be served: it has everything up to its number. */
  get position(): { after_seq: number; epoch?: string } {
    return { after_seq: this.seq, ...(this.epoch && { epoch: this.epoch }) };
  }

  joined(reply: { resume: string; from: number; epoch: string }): void {
    const { resume, from, epoch } = reply;
    if (resume !== "ok" || from !== this.seq || epoch !== (this.epoch ?? epoch)) {
      const asked = `${this.seq} of ${this.epoch}`;
      this.#report(`asked from ${asked}, a client got ${resume} from ${from} of ${epoch}`);
    }
    this.epoch = epoch;
    this.caughtUp = false;
  }

  /** Takes the text of a frame of this project, and the frame. */
  receive(text: string, frame: { type: string; seq?: number; timestamp: string; data: unknown }) {
    this.#continuity.receive(text);
    for (; this.#faults < this.#continuity.faults.length; this.#faults += 1)
      this.#report(this.#continuity.faults[this.#faults] ?? "");
    if (frame.type === "caught_up") this.caughtUp = true;
    if (frame.seq === undefined) return;
    const print = fingerprint(frame);
    const known = this.#seen.get(frame.seq);
    if (known === undefined) this.#seen.set(frame.seq, print);
    else if (known !== print) this.#report(`event ${frame.seq} is not the same for all`);
  }

  #report(sentence: string): void {
    this.#anomalies.report("out of order", `in ${this.project}: ${sentence}`);
  }
}
