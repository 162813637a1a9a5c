/**
 * Kills the server with SIGKILL at random moments while clients post, drop and come back, and
 * looks whether anything that was acknowledged is lost or doubled, or anything out of order.
 * `--rounds N`, `--seed N`; `--control` breaks the clients on purpose and must find anomalies.
 */
import { mkdirSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { agentsOf } from "../support/agents.ts";
import { Client, type Frame } from "../support/client.ts";
import { ServerProcess } from "../support/server-process.ts";
import { Poster } from "./poster.ts";
import { Witness } from "./witness.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "200" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    control: { type: "boolean", default: false },
  },
});
const rounds = Number(values.rounds);
let state = Number(values.seed);
const clients = 6;
const settings = {
  PA_LIMITS_EXECUTE_RATE: "1000000",
  PA_LIMITS_MESSAGE_RATE: "1000000",
  PA_EXECUTION_QUEUE_SIZE: "1000000",
  PA_MAX_PROJECTS: "1000000",
  PA_LOG_ROTATION_COUNT: "500",
  PA_TIMEOUTS_SHUTDOWN: "1s",
};

/** Mulberry32: the same seed gives the same choices. */
function random(): number {
  state = (state + 0x6d2b79f5) | 0;
  let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
}

interface Outcome {
  readonly anomalies: string[];
  readonly figures: Record<string, number>;
}

async function main(): Promise<number> {
  const home = await mkdtemp(join(tmpdir(), "pocket-agent-chaos-"));
  try {
    const { anomalies, figures } = await play(home);
    console.log(`seed ${values.seed}`);
    for (const [name, value] of Object.entries(figures))
      console.log(`${name.padEnd(28)} ${Math.round(value * 10) / 10}`);
    for (const anomaly of anomalies.slice(0, 20)) console.log(`ANOMALY ${anomaly}`);
    const found = anomalies.length > 0;
    if (!values.control) return found ? 1 : 0;
    console.log(found ? "The control failed, as it must" : "The control found nothing wrong");
    return found ? 0 : 1;
  } finally {
    await rm(home, { recursive: true, force: true });
  }
}

async function play(home: string): Promise<Outcome> {
  const starts: number[] = [];
  const start = async () => {
    const begin = performance.now();
    const made = await ServerProcess.start({ home, settings });
    starts.push(performance.now() - begin);
    return made;
  };
  let server: ServerProcess | undefined = await start();
  const projects = await prepare(server, home);
  let posting = true;
  const posters = Array.from({ length: clients }, (_, at) => {
    const witness = new Witness(`client ${at}`, values.control ? 97 : 0);
    return new Poster(witness, {
      url: () => server?.url,
      projects,
      directory: (name) => directory(home, name),
      random,
      posting: () => posting,
    });
  });
  const running = posters.map((poster) => poster.run());
  for (let round = 0; round < rounds; round += 1) {
    await Bun.sleep(50 + random() * 450);
    const crashed = server;
    server = undefined;
    await crashed.crash();
    server = await start();
  }
  posting = false;
  const anomalies = await settle(posters, server, projects);
  for (const poster of posters) poster.stop();
  await Promise.all(running);
  anomalies.push(...(await examine(posters, server, projects)));
  await server.stop();
  const left = await agentsOf(home);
  for (const { command } of left) anomalies.push(`${command} is left`);
  const sorted = starts.toSorted((a, b) => a - b);
  const executions = sum(posters, ({ commands }) => commands.acknowledged.size);
  return {
    anomalies,
    figures: {
      rounds,
      "connections of the clients": sum(posters, ({ connections }) => connections),
      "prompts acknowledged": executions,
      "projects made": sum(posters, ({ commands }) => commands.created.size),
      "projects deleted": sum(posters, ({ commands }) => commands.deleted.size),
      "events seen": sum(posters, ({ witness }) =>
        sum([...witness.projects.values()], ({ events }) => events.size),
      ),
      "start to listening, p50, ms": sorted[Math.floor(sorted.length / 2)] ?? 0,
      "start to listening, p99, ms": sorted[Math.floor(sorted.length * 0.99)] ?? 0,
      "lost, doubled, out of order": anomalies.length,
    },
  };
}

async function prepare(server: ServerProcess, home: string): Promise<string[]> {
  await using client = await Client.connect(server.url);
  const made: string[] = [];
  for (const name of ["one", "two", "three"]) made.push(await client.create(directory(home, name)));
  return made;
}

function directory(home: string, name: string): string {
  const path = join(home, "work", name);
  mkdirSync(path, { recursive: true });
  return path;
}

/** Waits until every client has a reply to everything and every event of every project. */
async function settle(
  posters: readonly Poster[],
  server: ServerProcess,
  projects: readonly string[],
): Promise<string[]> {
  await using client = await Client.connect(server.url);
  const deadline = performance.now() + 60_000;
  for (;;) {
    const { data } = await client.expect("project_list_response", "project_list");
    const known = data.projects.filter(({ id }) => projects.includes(id));
    const idle = known.every(({ state: now }) => now !== "EXECUTING");
    // A crash or a kill has paused the queue; a person who looks lets it go on.
    for (const project of known)
      if (project.state !== "EXECUTING" && project.queued > 0)
        await client.ask("execute", { project_id: project.id, data: { prompt: "say:go on" } });
    const done = known.every(({ queued }) => queued === 0) && idle;
    const level = posters.every(
      ({ level: has, witness }) =>
        has &&
        known.every(
          ({ id, last_seq }) => values.control || witness.place(id).after_seq === last_seq,
        ),
    );
    if (done && level) return [];
    if (performance.now() > deadline)
      return [
        `not level after a minute: ${JSON.stringify(known.map(({ state: s, queued, last_seq }) => [s, queued, last_seq]))} ${posters.map(({ level: l }) => l).join()}`,
      ];
    await Bun.sleep(100);
  }
}

/** Compares what the clients have seen and what they were promised with what the server has. */
async function examine(
  posters: readonly Poster[],
  server: ServerProcess,
  projects: readonly string[],
): Promise<string[]> {
  await using client = await Client.connect(server.url);
  const anomalies = posters.flatMap(({ witness }) => witness.anomalies);
  const runs = new Map<string, number>();
  for (const id of projects) {
    const log = await history(client, id);
    log.forEach(({ seq }, at) => {
      if (seq !== at + 1) anomalies.push(`the log of ${id} has ${seq} at ${at + 1}`);
    });
    for (const { message } of log)
      if (message.type === "execute" && "data" in message) {
        const { execution_id } = message.data as { execution_id: string };
        runs.set(execution_id, (runs.get(execution_id) ?? 0) + 1);
      }
    for (const { witness } of posters)
      for (const [seq, text] of witness.projects.get(id)?.events ?? []) {
        const message = log[seq - 1]?.message;
        const inLog = log[seq - 1]?.direction === "claude" ? message : message?.["data"];
        if (JSON.stringify(inLog) !== text) anomalies.push(`${witness.name} saw another ${seq}`);
      }
  }
  for (const [id, times] of runs) if (times > 1) anomalies.push(`${id} ran ${times} times`);
  const { data } = await client.expect("project_list_response", "project_list");
  const there = new Set(data.projects.map(({ id }) => id));
  for (const { commands } of posters) {
    for (const id of commands.acknowledged.keys())
      if (!runs.has(id)) anomalies.push(`the acknowledged prompt ${id} is lost`);
    for (const id of commands.created.values())
      if (!commands.condemned.has(id) && !there.has(id))
        anomalies.push(`the project ${id} is lost`);
    for (const id of commands.deleted)
      if (there.has(id)) anomalies.push(`the deleted project ${id} is back`);
  }
  return anomalies;
}

async function history(client: Client, project_id: string) {
  const all: Frame<"messages_response">["data"]["messages"] = [];
  for (;;) {
    const after_seq = all.at(-1)?.seq ?? 0;
    const { data } = await client.expect("messages_response", "get_messages", {
      project_id,
      data: { after_seq },
    });
    all.push(...data.messages);
    if (!data.has_more) return all;
  }
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}

process.exit(await main());
