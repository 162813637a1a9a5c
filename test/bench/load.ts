/**
 * The clients, in a process of their own: what they take must not count as the server's. The job
 * comes as the one argument; what was found is printed as JSON lines.
 */
import { quantile } from "./figure.ts";
import type { Feed } from "./feeder.ts";
import { sharedClock } from "./shared-clock.ts";
import { disconnected, Wire } from "./wire.ts";

/** Subscribers that see a feed through. */
interface Stream {
  readonly kind: "stream";
  readonly url: string;
  /** Null for a floor, where whoever connects is subscribed. */
  readonly project: string | null;
  readonly subscribers: number;
  /** How many more subscribe and read nothing before the others are done. */
  readonly stalled?: number;
  readonly feed: Feed;
}

/** Clients that send a request again whenever it is answered. */
interface Ask {
  readonly kind: "ask";
  readonly url: string;
  readonly clients: number;
  readonly requests: number;
  readonly message: object;
  /** Ten characters or more of the type that the answer has. */
  readonly answer: string;
}

/** Clients that are there, until they are told to do a job or stdin ends. */
interface Hold {
  readonly kind: "hold";
  readonly url: string;
  readonly project: string | null;
  readonly clients: number;
}

export type Job = Stream | Ask | Hold;

/** Lines that the feeder prints besides those that were asked for. */
const extraLines = 2;
const stampBytes = 16;
/** More connections at the same moment than a listening socket keeps in line would be lost. */
const atOnce = 200;
const clock = sharedClock();
const typeAt = '{"type":"'.length;

async function main(job: Job): Promise<void> {
  if (job.kind === "stream") await stream(job);
  if (job.kind === "ask") await ask(job);
  if (job.kind === "hold") await hold(job);
}

/** One subscriber: counts the agent's lines, and looks at their numbers if asked to. */
class Subscriber {
  readonly #project: string | null;
  readonly #looks: boolean;
  readonly joined = Promise.withResolvers<void>();
  readonly done = Promise.withResolvers<void>();
  readonly delays: number[] = [];
  readonly #expected: number;
  wire: Wire | undefined;
  count = 0;
  firstAt = 0;
  lastAt = 0;
  /** Numbers that were skipped, repeated or out of order. */
  breaks = 0;
  #seq: number | undefined;

  constructor({ project, feed }: Stream, looks: boolean) {
    this.#project = project;
    this.#looks = looks;
    this.#expected = feed.lines + extraLines;
  }

  async join(url: URL): Promise<void> {
    this.wire = await Wire.connect(url, (payload) => this.#receive(payload));
    if (this.#project === null) return;
    this.wire.send({ type: "project_join", project_id: this.#project });
    await this.joined.promise;
  }

  #receive(payload: Buffer): void {
    if (this.#looks) this.#look(payload);
    const type = payload.toString("latin1", typeAt, typeAt + 4);
    if (type === "caug") this.joined.resolve();
    if (type !== "agen") return;
    this.count += 1;
    if (this.count === 1) this.firstAt = performance.now();
    if (this.count < this.#expected) return;
    this.lastAt = performance.now();
    if (this.count > this.#expected) this.breaks += 1;
    this.done.resolve();
  }

  #look(payload: Buffer): void {
    const seq = /^\{"type":"\w+","project_id":"[^"]+","seq":(\d+)/.exec(
      payload.toString("latin1", 0, 140),
    )?.[1];
    if (seq === undefined) return;
    if (this.#seq !== undefined && Number(seq) !== this.#seq + 1) this.breaks += 1;
    this.#seq = Number(seq);
    const end = payload.length - '"}}'.length;
    const stamp = Number(payload.toString("latin1", end - stampBytes, end));
    // Only lines that were printed at a rate have one.
    if (stamp > 0) this.delays.push(clock() - stamp);
  }
}

async function stream(job: Stream): Promise<void> {
  const { project, feed, stalled = 0 } = job;
  const url = new URL(job.url);
  const looks = feed.rate !== undefined;
  const make = (count: number) => Array.from({ length: count }, () => new Subscriber(job, looks));
  const readers = make(job.subscribers);
  const sleepers = make(stalled);
  await Promise.all([...readers, ...sleepers].map((subscriber) => subscriber.join(url)));
  for (const { wire } of sleepers) wire?.pause();
  const prompt = JSON.stringify(feed);
  readers[0]?.wire?.send({ type: "execute", project_id: project ?? undefined, data: { prompt } });
  await Promise.all(readers.map(({ done }) => done.promise));
  const delays = readers.flatMap((reader) => reader.delays.map((us) => us / 1000));
  report({
    done: true,
    ms:
      Math.max(...readers.map(({ lastAt }) => lastAt)) -
      Math.min(...readers.map(({ firstAt }) => firstAt)),
    p50: quantile(delays, 0.5),
    p99: quantile(delays, 0.99),
    breaks: sum(readers),
  });
  if (stalled === 0) return;
  const begin = performance.now();
  for (const { wire } of sleepers) wire?.resume();
  await Promise.all(sleepers.map(({ done }) => done.promise));
  report({ level: true, ms: performance.now() - begin, breaks: sum(sleepers) });
}

async function ask(job: Ask): Promise<void> {
  const delays: number[] = [];
  let left = job.requests;
  const { promise, resolve } = Promise.withResolvers<void>();
  const begin = performance.now();
  let waiting = job.clients;
  const one = async (): Promise<void> => {
    let sentAt = 0;
    const next = (): void => {
      if (left <= 0) {
        waiting -= 1;
        if (waiting === 0) resolve();
        return;
      }
      left -= 1;
      sentAt = performance.now();
      wire.send(job.message);
    };
    const wire = await Wire.connect(new URL(job.url), (payload) => {
      const end = typeAt + job.answer.length;
      if (payload.toString("latin1", typeAt, end) !== job.answer) return;
      delays.push(performance.now() - sentAt);
      next();
    });
    next();
  };
  await Promise.all(Array.from({ length: job.clients }, one));
  await promise;
  report({
    done: true,
    ms: performance.now() - begin,
    p50: quantile(delays, 0.5),
    p99: quantile(delays, 0.99),
  });
}

async function hold({ url, project, clients }: Hold): Promise<void> {
  const { promise: joined, resolve } = Promise.withResolvers<void>();
  let missing = project === null ? 0 : clients;
  if (missing === 0) resolve();
  const wires: Wire[] = [];
  const connect = () =>
    Wire.connect(new URL(url), (payload) => {
      if (payload.toString("latin1", typeAt, typeAt + 4) === "caug" && --missing === 0) resolve();
    });
  while (wires.length < clients) {
    const some = Math.min(atOnce, clients - wires.length);
    wires.push(...(await Promise.all(Array.from({ length: some }, connect))));
  }
  if (project !== null)
    for (const wire of wires) wire.send({ type: "project_join", project_id: project });
  await joined;
  report({ ready: true });
  await Bun.stdin.text();
}

function sum(subscribers: readonly Subscriber[]): number {
  return subscribers.reduce((total, { breaks }) => total + breaks, 0);
}

function report(found: object): void {
  process.stdout.write(`${JSON.stringify(found)}\n`);
}

const [job = ""] = process.argv.slice(2);
await Promise.race([main(JSON.parse(job)), disconnected]);
process.exit(0);
