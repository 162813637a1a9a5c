const heading = /^\{"type":"(\w+)","project_id":"([^"]+)"(?:,"seq":(\d+))?,"timestamp"/;

interface Event {
  readonly type: string;
  readonly project_id?: string | undefined;
  readonly seq?: number | undefined;
}

/**
 * Follows what one connection receives of one project and finds every event that is missing,
 * repeated or out of order. Parses only what it must, because it watches floods.
 */
export class Continuity {
  readonly #project: string;
  /** The first few breaches of the promise, as sentences. */
  readonly faults: string[] = [];
  /** The event that was received last, or the place from which they were to follow. */
  seq = 0;
  events = 0;
  joins = 0;
  caughtUp = 0;
  /** Events since `caught_up`; none of them is live before that. */
  live = Number.NEGATIVE_INFINITY;
  /** How often a live event came behind `caught_up`. */
  handedOver = 0;
  /** Called after each frame of the project. */
  onFrame: (type: string) => void = () => undefined;

  constructor(project: string, from = 0) {
    this.#project = project;
    this.seq = from;
  }

  /** Takes the text of a frame. */
  readonly receive = (text: string): void => {
    const found = heading.exec(text.slice(0, 160));
    const event: Event = found
      ? { type: found[1] ?? "", project_id: found[2], seq: found[3] ? Number(found[3]) : undefined }
      : JSON.parse(text);
    if (event.project_id === this.#project) this.#take(event, text);
  };

  #take({ type, seq }: Event, text: string): void {
    if (seq !== undefined) {
      if (seq !== this.seq + 1) this.#fault(`event ${seq} came after ${this.seq}`);
      this.seq = seq;
      this.events += 1;
      this.live += 1;
      if (this.live === 1 && this.caughtUp > 0) this.handedOver += 1;
    }
    if (type === "project_joined") {
      this.seq = JSON.parse(text).data.from;
      this.joins += 1;
      this.live = Number.NEGATIVE_INFINITY;
    }
    if (type === "caught_up") {
      const { seq: reached } = JSON.parse(text).data;
      if (reached !== this.seq) this.#fault(`caught_up ${reached} came after ${this.seq}`);
      this.caughtUp += 1;
      this.live = 0;
    }
    this.onFrame(type);
  }

  #fault(sentence: string): void {
    if (this.faults.length < 10) this.faults.push(sentence);
  }
}
