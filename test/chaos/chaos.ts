/**
 * Kills a real server with SIGKILL again and again, at random moments, while agents stream and
 * clients work, leave and return; then compares what clients were told with what the disk says.
 *
 *   bun run chaos [--rounds N] [--seed N]   exits with 1 if anything was lost, doubled or disordered
 *   bun run chaos --control                 looks through a broken reader, and must exit with 1
 */
import { mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { quantile, table, value } from "../bench/figure.ts";
import { audit, type Log, readLogs } from "./audit.ts";
import { Anomalies } from "./anomalies.ts";
import { Chaos } from "./rounds.ts";

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "200" },
    seed: { type: "string", default: String(Date.now() % 1_000_000) },
    control: { type: "boolean", default: false },
  },
});
const rounds = Number(flags.rounds);
const seed = Number(flags.seed);

const home = realpathSync(mkdtempSync(join(tmpdir(), "pocket-chaos-")));
try {
  process.exitCode = flags.control ? await control() : await run();
} finally {
  rmSync(home, { recursive: true, force: true });
}

async function run(): Promise<number> {
  const chaos = new Chaos({ home, seed });
  await chaos.run(rounds);
  const logs = readLogs(chaos.dataDir, chaos.anomalies);
  const { compared } = audit(logs, chaos);
  report(chaos, logs, compared);
  return chaos.anomalies.total === 0 ? 0 : 1;
}

/** Three lies that the checks must see through. */
async function control(): Promise<number> {
  const chaos = new Chaos({ home, seed, dropEvery: 1_000 });
  await chaos.run(Math.min(rounds, 8));
  const dropped = chaos.anomalies.count("out of order");
  const logs = readLogs(chaos.dataDir, new Anomalies());
  const without = countAfter(
    chaos,
    "lost",
    changed(logs, chaos, () => []),
  );
  const twice = countAfter(
    chaos,
    "doubled",
    changed(logs, chaos, (line) => [line, line]),
  );
  console.log(`one event in 1000 not read: ${dropped} out of order`);
  console.log(`one acknowledged prompt not in the log: ${without} lost`);
  console.log(`one acknowledged prompt twice in the log: ${twice} doubled`);
  const seenThrough = dropped > 0 && without > 0 && twice > 0;
  console.log(
    seenThrough
      ? "The control failed, as it must: the checks see what is wrong"
      : "THE CONTROL PASSED: the checks are blind, and what they say is worth nothing",
  );
  return seenThrough ? 1 : 0;
}

type Line = Log["records"][number];

/** The logs with one acknowledged prompt replaced. */
function changed(logs: readonly Log[], chaos: Chaos, by: (line: Line) => Line[]): Log[] {
  const ids = chaos.orders.prompts.flatMap(({ execution_id, outcome }) =>
    outcome === "acknowledged" ? [execution_id] : [],
  );
  const texts = new Map(
    logs.map((log) => [log, log.records.map((record) => JSON.stringify(record))] as const),
  );
  const isIt = (line: string, id: string) => !line.includes(`"claude"`) && line.includes(`${id}"`);
  const victim = ids.find((id) =>
    [...texts.values()].some((lines) => lines.some((line) => isIt(line, id))),
  );
  return logs.map((log) => ({
    ...log,
    records: log.records.flatMap((record, at) =>
      victim && isIt(texts.get(log)?.[at] ?? "", victim) ? by(record) : [record],
    ),
  }));
}

function countAfter({ orders, seen }: Chaos, kind: "lost" | "doubled", logs: Log[]): number {
  const anomalies = new Anomalies();
  audit(logs, { orders, seen, anomalies });
  return anomalies.count(kind);
}

function report(chaos: Chaos, logs: readonly Log[], compared: number): void {
  const { orders, visitors, anomalies, starts, reopenings } = chaos;
  const sum = (numbers: readonly number[]) => numbers.reduce((all, number) => all + number, 0);
  const prompts = (outcome: string) =>
    orders.prompts.filter((order) => order.outcome === outcome).length;
  const count = (what: string, number: number) => value(number, { what, unit: "", budget: null });
  const ms = (what: string, number: number, most?: number) =>
    value(number, { what, unit: "ms", budget: most === undefined ? null : { most } });
  const figures = [
    count("kills, of these before it listened", chaos.kills),
    count("  before it listened", chaos.earlyKills),
    count("connections", sum(visitors.map(({ connections }) => connections))),
    count("prompts acknowledged", prompts("acknowledged")),
    count("prompts never answered", prompts("unknown")),
    count("prompts refused", prompts("refused")),
    count("projects made", orders.projects.filter(({ id }) => id).length),
    count("projects deleted", orders.projects.filter(({ deletion }) => deletion !== "no").length),
    count("records in the logs", sum(logs.map(({ records }) => records.length))),
    count("log files", sum(logs.map(({ files }) => files))),
    count("torn ends cut off", sum(logs.map(({ cut }) => cut))),
    count("events read by clients", sum(visitors.map(({ events }) => events))),
    count("events compared with the log", compared),
    count("runs left behind and swept", chaos.swept),
    ms("from start to listening, p50", quantile(starts, 0.5)),
    ms("from start to listening, p99", quantile(starts, 0.99)),
    ms("opening a log again, p50", quantile(reopenings, 0.5)),
    ms("opening a log again, p99", quantile(reopenings, 0.99), 100),
  ];
  console.log(table(figures));
  console.log(`seed ${seed}`);
  console.log(String(anomalies));
}
