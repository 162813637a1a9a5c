import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { openMessageLog } from "../../src/adapters/message-log.ts";
import { AgentLog } from "../support/agent-log.ts";
import { Client } from "../support/client.ts";
import { ServerProcess, spawnServer } from "../support/server-process.ts";
import { Anomalies } from "./anomalies.ts";
import { carried, recordedMarkers } from "./leftovers.ts";
import type { Seen } from "./mirror.ts";
import { FaultyNetwork } from "./network.ts";
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
  readonly #home: string;
  readonly #random: Random;
  /** Markers of runs that a killed server left, until nobody carries them any more. */
  readonly #left = new Set<string>();
  #server: number | undefined;

  constructor({ home, seed, dropEvery }: { home: string; seed: number; dropEvery?: number }) {
    this.#home = home;
    this.dataDir = join(home, "data");
    this.#random = new Random(seed);
    const folder = join(home, "work");
    mkdirSync(folder);
    const { orders, seen, anomalies } = this;
    this.visitors = Array.from(
      { length: clients },
      (_, at) =>
        new Visitor({ orders, seen, anomalies, folder }, new Random(seed + 1 + at), dropEvery),
    );
  }

  /** So many kills, so long a bad network, and then a last look at what is left. */
  async run({ rounds, seconds }: { rounds: number; seconds: number }): Promise<void> {
    for (this.orders.round = 1; this.orders.round <= rounds; this.orders.round += 1) {
      if (this.#random.chance(0.1)) await this.#killEarly();
      await this.#round();
      if (process.stderr.isTTY) process.stderr.write(`\rround ${this.orders.round} of ${rounds}`);
    }
    if (seconds > 0) await this.#badNetwork(seconds);
    await this.#lastLook();
    this.#checkAgents();
  }

  async #round(): Promise<void> {
    const server = await this.#start();
    await this.#checkProjects(server.url);
    let over = false;
    const visits = this.visitors.map((visitor) => visitor.visit(server.url, () => over));
    await Bun.sleep(this.#random.between(50, 600));
    if (this.orders.round % 5 === 0) await this.#expectSwept();
    await server.crash();
    over = true;
    await Promise.all(visits);
    this.#died();
  }

  /** Clients work over a network that fails; then the server is told to stop in the middle. */
  async #badNetwork(seconds: number): Promise<void> {
    await using network = await FaultyNetwork.listen(this.#random);
    const host = `127.0.0.1:${network.port}`;
    const server = await this.#start({ PA_SERVER_ALLOWED_HOSTS: host, PA_TIMEOUTS_SHUTDOWN: "1s" });
    network.target = Number(server.url.port);
    let over = false;
    const url = new URL(`http://${host}`);
    const visits = this.visitors.map((visitor) => visitor.visit(url, () => over));
    const until = performance.now() + seconds * 1000;
    while (performance.now() < until) {
      await Bun.sleep(Math.min(1_000, Math.max(0, until - performance.now())));
      if (process.stderr.isTTY)
        process.stderr.write(
          `\r${((until - performance.now()) / 1000).toFixed(0)} s of bad network `,
        );
    }
    await using client = await Client.connect(server.url);
    const { data } = await client.expect("project_list_response", "project_list");
    this.stoppedRuns = data.projects.filter(({ state }) => state === "EXECUTING").length;
    const code = await server.stop();
    if (code !== 0) this.#wrong(`a server that was told to stop exited with ${code}`);
    over = true;
    await Promise.all(visits);
    this.#died();
    this.kills -= 1;
    Object.assign(this.faults, network.faults);
    this.orders.round += 1;
  }

  /** Kills a server before anybody can talk to it. */
  async #killEarly(): Promise<void> {
    const child = spawnServer({ home: this.#home, settings });
    this.#server = child.pid;
    await Bun.sleep(this.#random.between(10, 150));
    child.kill("SIGKILL");
    await child.exited;
    this.earlyKills += 1;
    this.#died();
  }

  /** Ends whatever was started, also in the middle of a round. */
  [Symbol.dispose](): void {
    if (this.#server) end(this.#server);
    this.#remember();
    for (const pid of [...carried(this.#left).values()].flat()) end(pid);
  }

  #died(): void {
    this.#server = undefined;
    this.kills += 1;
    this.#remember();
  }

  #remember(): void {
    try {
      for (const marker of recordedMarkers(this.dataDir)) this.#left.add(marker);
    } catch {
      // It did not live long enough to make its folders.
    }
  }

  async #lastLook(): Promise<void> {
    const server = await this.#start();
    await this.#checkProjects(server.url);
    await this.#quiet(server.url);
    await Promise.all(this.orders.open.map((project) => this.#askAgain(server.url, project)));
    await Promise.all(this.visitors.map((visitor) => visitor.catchUp(server.url)));
    await this.#expectSwept();
    const code = await server.stop();
    this.#server = undefined;
    if (code !== 0) this.#wrong(`the last server exited with ${code}`);
  }

  async #start(extra: Readonly<Record<string, string>> = {}): Promise<ServerProcess> {
    this.#reopen();
    const begin = performance.now();
    const all = { ...settings, ...extra };
    const server = await ServerProcess.start({ home: this.#home, settings: all });
    this.#server = server.pid;
    this.starts.push(performance.now() - begin);
    return server;
  }

  /** Opens a copy of the end of a log as the next server will open the log itself. */
  #reopen(): void {
    const projects = this.orders.open.map((id) => join(this.dataDir, "projects", id, "logs"));
    const logs = this.#random.pick(projects);
    if (!logs) return;
    const copy = join(this.#home, "copy");
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
  async #expectSwept(): Promise<void> {
    const deadline = performance.now() + patienceMs;
    let alive = carried(this.#left);
    while (alive.size > 0 && performance.now() < deadline) {
      await Bun.sleep(20);
      alive = carried(this.#left);
    }
    this.swept += this.#left.size - alive.size;
    for (const [marker, pids] of alive) {
      this.#wrong(`processes ${pids.join(", ")} of run ${marker} live on`);
      for (const pid of pids) process.kill(pid, "SIGKILL");
    }
    this.#left.clear();
  }

  /** No agent was given a prompt that any agent was given before. */
  #checkAgents(): void {
    const given = new Map<string, number>();
    for (const content of new AgentLog(this.#home).prompts()) {
      const id = /say:([0-9a-f-]{36})/.exec(JSON.stringify(content))?.[1] ?? "";
      given.set(id, (given.get(id) ?? 0) + 1);
    }
    for (const [id, times] of given)
      if (times > 1) this.anomalies.report("doubled", `prompt ${id} was run ${times} times`);
    const log = readFileSync(join(this.#home, "agent.jsonl"), "utf8");
    if (!log.includes("say:")) this.#wrong("no agent was given anything to do");
  }

  #wrong(sentence: string): void {
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
