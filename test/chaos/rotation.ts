import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Client } from "../support/client.ts";
import { ServerProcess } from "../support/server-process.ts";
import { Tracer } from "../support/tracer.ts";
import type { Anomalies } from "./anomalies.ts";
import { audit, type Log, readLogs } from "./audit.ts";
import { Mirror, type Seen } from "./mirror.ts";
import { Orders } from "./orders.ts";

const perFile = 8;
/** Enough for three new files. */
const linesOfAgent = 20;
const settings = { PA_LOG_ROTATION_COUNT: String(perFile) };

/** Everything that a rotation asks of the system, and what follows from it. */
const calls = ["openat", "statx", "write", "close", "fdatasync", "fsync", "rename"];

/**
 * Kills a server with SIGKILL before its first, second, … call of each kind that is about the log or
 * the metadata of a project, while an agent fills one log file after the other: until a whole run makes
 * no more such calls. `stride` leaves some out. Gives which calls were the last of a server.
 */
export async function rotations(
  folder: string,
  { stride, anomalies }: { stride: number; anomalies: Anomalies },
): Promise<{ crashes: number; before: readonly string[]; compared: number }> {
  const stage = await Stage.open(join(folder, "rotation"), anomalies);
  const before: string[] = [];
  for (const call of calls)
    for (let at = 1; ; at += stride) {
      const last = await stage.crash(call, at);
      if (last === undefined) break;
      before.push(last);
      if (process.stderr.isTTY) process.stderr.write(`\r${before.length} crashes in rotations `);
    }
  const { compared } = await stage.close();
  return { crashes: before.length, before: [...new Set(before)].toSorted(), compared };
}

/** One project, whose log files have names that are known beforehand. */
class Stage {
  readonly #home: string;
  readonly #project: string;
  readonly #anomalies: Anomalies;
  readonly #orders = new Orders();
  readonly #seen: Seen = new Map();
  readonly #mirror: Mirror;

  private constructor(home: string, project: string, anomalies: Anomalies) {
    this.#home = home;
    this.#project = project;
    this.#anomalies = anomalies;
    this.#mirror = new Mirror(project, { seen: this.#seen, anomalies });
  }

  static async open(home: string, anomalies: Anomalies): Promise<Stage> {
    const work = join(home, "work");
    mkdirSync(work, { recursive: true });
    await using server = await ServerProcess.start({ home, settings });
    await using client = await Client.connect(server.url);
    const stage = new Stage(home, await client.create(work), anomalies);
    await server.stop();
    // Files are named after the newest, as long as its name is ahead of the clock.
    writeFileSync(join(stage.#logs, nameOf(0)), "", { mode: 0o600 });
    return stage;
  }

  /** Kills the server before one call; names that call, or nothing when there were fewer. */
  async crash(call: string, at: number): Promise<string | undefined> {
    const server = await ServerProcess.start({ home: this.#home, settings });
    const client = await Client.connect(server.url);
    await this.#join(client);
    const trace = join(this.#home, "trace");
    const options = ["-y", "-o", trace, "-e", `inject=${call}:signal=KILL:when=${at}`];
    for (const path of this.#paths) options.push("-P", path);
    const exited = server.exited.then(() => true);
    const tracer = await Tracer.attach(server.pid, options);
    // What is synced and saved after the run is part of it.
    const worked = this.#work(client).then(() => Bun.sleep(400));
    const killed = await Promise.race([exited, worked.then(() => false)]);
    await tracer[Symbol.asyncDispose]();
    if (!killed) await server.stop();
    await worked;
    client.socket.close();
    this.#look(client);
    return killed ? lastCall(readFileSync(trace, "utf8")) : undefined;
  }

  /** Compares the log with all that was seen and promised. */
  async close(): Promise<{ compared: number }> {
    {
      await using server = await ServerProcess.start({ home: this.#home, settings });
      await using client = await Client.connect(server.url);
      await this.#join(client);
      this.#look(client);
    }
    const logs: Log[] = readLogs(join(this.#home, "data"), this.#anomalies);
    const seen = new Map([[this.#project, this.#seen]]);
    return audit(logs, { orders: this.#orders, seen, anomalies: this.#anomalies });
  }

  async #join(client: Client): Promise<void> {
    const data = this.#mirror.position;
    await client.expect("project_joined", "project_join", { project_id: this.#project, data });
    await client.next("caught_up");
  }

  /** Has an agent fill some files; the server may be gone before it is done. */
  async #work(client: Client): Promise<void> {
    const order = this.#orders.prompt(
      this.#project,
      (id) => `flood:${linesOfAgent}:100:3\nsay:${id}`,
    );
    const { execution_id, text: prompt, project: project_id } = order;
    try {
      const reply = await client.ask("execute", { project_id, data: { prompt, execution_id } });
      order.outcome = reply.type === "error" ? "refused" : "acknowledged";
      if (reply.type === "project_state") await client.settled(project_id, reply.data.last_seq);
    } catch {
      // It is gone, which is what was wanted; what it had said counts.
    }
  }

  #look(client: Client): void {
    for (const frame of client.received) {
      if (frame.type === "project_joined") this.#mirror.joined(frame.data);
      if (frame.project_id === this.#project) this.#mirror.receive(JSON.stringify(frame), frame);
    }
  }

  get #folder(): string {
    return join(this.#home, "data", "projects", this.#project);
  }

  get #logs(): string {
    return join(this.#folder, "logs");
  }

  /** Everything that is touched when a file is full. */
  get #paths(): string[] {
    const files = readdirSync(this.#logs).filter((name) => name.endsWith(".jsonl")).length;
    const names = Array.from({ length: 8 }, (_, at) => nameOf(files - 1 + at));
    const metadata = join(this.#folder, "metadata.json");
    return [
      this.#folder,
      this.#logs,
      metadata,
      `${metadata}.tmp`,
      ...names.map((name) => join(this.#logs, name)),
    ];
  }
}

/** What the server calls the next file, and the one after that, when the first is `nameOf(0)`. */
function nameOf(at: number): string {
  const second = String(Math.floor(at / 100)).padStart(2, "0");
  const count = at % 100 === 0 ? "" : `_${String(at % 100).padStart(2, "0")}`;
  return `messages_2999-01-01_00-00-${second}${count}.jsonl`;
}

/** The call that strace showed last, and what it was about. */
function lastCall(trace: string): string {
  const lines = trace.split("\n").filter((line) => /^(?:\d+ +)?\w+\(/.test(line));
  const [, name = "?", rest = ""] = /^(?:\d+ +)?(\w+)\((.*)$/.exec(lines.at(-1) ?? "") ?? [];
  const about =
    ["messages_", "metadata.json.tmp", "metadata.json", "/logs"].find((part) =>
      rest.includes(part),
    ) ?? "the folder";
  return `${name} ${about}`;
}
