import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { openMessageLog } from "../../src/adapters/message-log.ts";
import { AgentLog } from "../support/agent-log.ts";
import { Client } from "../support/client.ts";
import { ServerProcess, spawnServer } from "../support/server-process.ts";
import { Anomalies } from "./anomalies.ts";
import { carried, recordedMarkers } from "./leftovers.ts";
import type { Seen } from "./mirror.ts";
import { Orders } from "./orders.ts";
import { Random } from "./random.ts";
import { Visitor } from "./visitor.ts";

const clients = 6;
/** So long a leftover may live once a server is there again, on a machine that is busy. */
const patienceMs = 20_000;

/** Of the 1,000 accepted ids that a project remembers; some were accepted and not acknowledged. */
const rememberedIds = 500;

const settings = {
  PA_LIMITS_MESSAGE_RATE: "100000",
  PA_LIMITS_EXECUTE_RATE: "100000",
  PA_CONNECTION_RATE: "100000",
  PA_EXECUTION_MAX_CONCURRENT: "4",
  PA_EXECUTION_QUEUE_SIZE: "1000",
  // Files are full soon, so that servers die in the middle of a rotation, too.
  PA_LOG_ROTATION_COUNT: "1000",
};

/** A server that is killed and started again, and the clients that live with that. */
export class Chaos implements Disposable {
  readonly home: string;
  readonly random: Random;
  readonly dataDir: string;
  readonly orders = new Orders();
  readonly seen = new Map<string, Seen>();
  readonly anomalies = new Anomalies();
  readonly visitors: readonly Visitor[];
  readonly starts: number[] = [];
  readonly reopenings: number[] = [];
  kills = 0;
  earlyKills = 0;
  swept = 0;
  /** What the bad network did. */
  readonly faults: Record<string, number> = {};
  /** Runs in progress when the server was told to stop. */
  stoppedRuns = 0;

  /** Markers of runs that a killed server left, until nobody carries them any more. */
  readonly #left = new Set<string>();
  #server: number | undefined;

  constructor({ home, seed, dropEvery }: { home: string; seed: number; dropEvery?: number }) {
    this.home = home;
    this.dataDir = join(home, "data");
    this.random = new Random(seed);
    const folder = join(home, "work");
    mkdirSync(folder);
    const { orders, seen, anomalies } = this;
    this.visitors = Array.from(
      { length: clients },
      (_, at) =>
        new Visitor({ orders, seen, anomalies, folder }, new Random(seed + 1 + at), dropEvery),
    );
  }

  /** Ends whatever was started, also in the middle of a round. */
  [Symbol.dispose](): void {
    if (this.#server) end(this.#server);
    this.#remember();
    for (const pid of [...carried(this.#left).values()].flat()) end(pid);
  }

  /** The server is no more, however that came about. */
  gone(): void {
    this.#server = undefined;
    this.#remember();
  }

  #remember(): void {
    try {
      for (const marker of recordedMarkers(this.dataDir)) this.#left.add(marker);
    } catch {
      // It did not live long enough to make its folders.
    }
  }

  /** Looks at what is left: nothing runs, and every client has everything. */
  async lastLook(): Promise<void> {
    const server = await this.start();
    await this.#quiet(server.url);
    await Promise.all(this.orders.open.map((project) => this.#askAgain(server.url, project)));
    await Promise.all(this.visitors.map((visitor) => visitor.catchUp(server.url)));
    await this.expectSwept();
    await this.stop(server);
    this.#checkAgents();
  }

  /** Starts the server on what the one before has left, and looks whether that is all there. */
  async start(extra: Readonly<Record<string, string>> = {}): Promise<ServerProcess> {
    this.#reopen();
    const begin = performance.now();
    const all = { ...settings, ...extra };
    const server = await ServerProcess.start({ home: this.home, settings: all });
    this.#server = server.pid;
    this.starts.push(performance.now() - begin);
    await this.#checkProjects(server.url);
    return server;
  }

  /** Starts it, and kills it before anybody can talk to it. */
  async startAndKill(afterMs: number): Promise<void> {
    const child = spawnServer({ home: this.home, settings });
    this.#server = child.pid;
    await Bun.sleep(afterMs);
    child.kill("SIGKILL");
    await child.exited;
    this.gone();
  }

  /** Tells it to stop, which it must do in order. */
  async stop(server: ServerProcess): Promise<void> {
    const code = await server.stop();
    if (code !== 0) this.wrong(`a server that was told to stop exited with ${code}`);
    this.gone();
  }

  /** Has all clients at work until `meanwhile` has come to its end. */
  async visits(url: URL, meanwhile: () => Promise<void>): Promise<void> {
    let over = false;
    const visits = this.visitors.map((visitor) => visitor.visit(url, () => over));
    try {
      await meanwhile();
    } finally {
      over = true;
    }
    await Promise.all(visits);
    this.orders.round += 1;
  }

  /** Opens a copy of the end of a log as the next server will open the log itself. */
  #reopen(): void {
    const projects = this.orders.open.map((id) => join(this.dataDir, "projects", id, "logs"));
    const logs = this.random.pick(projects);
    if (!logs) return;
    const copy = join(this.home, "copy");
    const newest = readdirSync(logs)
      .filter((name) => name.endsWith(".jsonl"))
      .toSorted()
      .slice(-2);
    for (const name of newest) cpSync(join(logs, name), join(copy, name));
    const begin = performance.now();
    openMessageLog({
      directory: copy,
      recorded: null,
      changed: () => undefined,
      rotation: { bytes: 1e9, count: 1e9, keepDays: 0 },
      telemetry: {
        count: () => undefined,
        gauge: () => undefined,
        observe: () => undefined,
        log: () => undefined,
      },
    });
    this.reopenings.push(performance.now() - begin);
    rmSync(copy, { recursive: true, force: true });
  }

  /** Acknowledged projects are there, deleted ones are not; what was never answered is learnt. */
  async #checkProjects(url: URL): Promise<void> {
    await using client = await Client.connect(url);
    const { data } = await client.expect("project_list_response", "project_list");
    const ids = new Map(data.projects.map(({ id, path }) => [path, id]));
    if (ids.size !== data.projects.length)
      this.anomalies.report("doubled", "a directory is two projects");
    for (const order of this.orders.projects) {
      const id = ids.get(order.path);
      if (order.creation === "acknowledged" && order.deletion === "no" && !id)
        this.anomalies.report("lost", `project ${order.id} is gone`);
      if (order.deletion === "acknowledged" && id)
        this.anomalies.report("lost", `the deletion of ${order.id} is gone`);
      if (id !== undefined && order.id !== undefined && id !== order.id)
        this.anomalies.report("lost", `project ${order.id} has become ${id}`);
      order.id ??= id;
      if (id) order.creation = "acknowledged";
      // A creation that came to nothing is as good as a deletion.
      const open = order.deletion === "unknown" || order.creation === "unknown";
      if (open) order.deletion = id ? "no" : "acknowledged";
    }
  }

  /** Stops what runs, and what that lets begin, until nothing does. */
  async #quiet(url: URL): Promise<void> {
    await using client = await Client.connect(url);
    for (;;) {
      const { data } = await client.expect("project_list_response", "project_list");
      const running = data.projects.filter(({ state }) => state === "EXECUTING");
      if (running.length === 0) return;
      for (const { id } of running)
        await client.ask("agent_kill", { project_id: id, data: { force: true } });
    }
  }

  /** Sends the newest prompts of a project again: all are known, and none begins. */
  async #askAgain(url: URL, project_id: string): Promise<void> {
    await using client = await Client.connect(url);
    const promised = this.orders.prompts.filter(
      ({ project, outcome }) => project === project_id && outcome === "acknowledged",
    );
    for (const order of promised.slice(-rememberedIds)) {
      const { execution_id, text: prompt } = order;
      const data = { prompt, execution_id, queue: true };
      order.askedAt = new Date().toISOString();
      const reply = await client.ask("execute", { project_id, data });
      if (reply.type === "execution_status") order.status = reply.data.status;
      else this.anomalies.report("lost", `prompt ${execution_id} is not known: ${reply.type}`);
    }
  }

  /** What an earlier server left alive must be gone before long. */
  async expectSwept(): Promise<void> {
    const deadline = performance.now() + patienceMs;
    let alive = carried(this.#left);
    while (alive.size > 0 && performance.now() < deadline) {
      await Bun.sleep(20);
      alive = carried(this.#left);
    }
    this.swept += this.#left.size - alive.size;
    for (const [marker, pids] of alive) {
      this.wrong(`processes ${pids.join(", ")} of run ${marker} live on`);
      for (const pid of pids) process.kill(pid, "SIGKILL");
    }
    this.#left.clear();
  }

  /** No agent was given a prompt that any agent was given before. */
  #checkAgents(): void {
    const given = new Map<string, number>();
    for (const content of new AgentLog(this.home).prompts()) {
      const id = /say:([0-9a-f-]{36})/.exec(JSON.stringify(content))?.[1] ?? "";
      given.set(id, (given.get(id) ?? 0) + 1);
    }
    for (const [id, times] of given)
      if (times > 1) this.anomalies.report("doubled", `prompt ${id} was run ${times} times`);
    const log = readFileSync(join(this.home, "agent.jsonl"), "utf8");
    if (!log.includes("say:")) this.wrong("no agent was given anything to do");
  }

  wrong(sentence: string): void {
    this.anomalies.report("otherwise wrong", sentence);
  }
}

function end(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}
