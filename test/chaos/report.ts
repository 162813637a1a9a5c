import { quantile, table, value } from "../bench/figure.ts";
import { audit, type Log } from "./audit.ts";
import type { Chaos } from "./world.ts";

const sum = (numbers: readonly number[]) => numbers.reduce((all, number) => all + number, 0);
const count = (what: string, number: number) => value(number, { what, unit: "", budget: null });
const ms = (what: string, number: number, most?: number) =>
  value(number, { what, unit: "ms", budget: most === undefined ? null : { most } });

/** Prints what was done, how long it took, and what was wrong; 1 if anything was. */
export function report(chaos: Chaos, logs: readonly Log[]): number {
  const { compared } = audit(logs, chaos);
  const { orders, visitors, anomalies, starts, reopenings } = chaos;
  const prompts = (outcome: string) =>
    orders.prompts.filter((order) => order.outcome === outcome).length;
  const figures = [
    count("kills", chaos.kills),
    count("of these before it listened", chaos.earlyKills),
    count("connections", sum(visitors.map(({ connections }) => connections))),
    count("prompts acknowledged", prompts("acknowledged")),
    count("prompts without a clear answer", prompts("unknown")),
    count("prompts refused", prompts("refused")),
    count("projects made", orders.projects.filter(({ id }) => id).length),
    count("projects deleted", orders.projects.filter(({ deletion }) => deletion !== "no").length),
    count("records in the logs", sum(logs.map(({ records }) => records.length))),
    count("log files", sum(logs.map(({ files }) => files))),
    count("torn ends cut off", sum(logs.map(({ cut }) => cut))),
    count("events read by clients", sum(visitors.map(({ events }) => events))),
    count("events compared with the log", compared),
    count("runs left behind and swept", chaos.swept),
    ...Object.entries(chaos.faults).map(([what, number]) => count(what, number)),
    count("runs in progress at SIGTERM", chaos.stoppedRuns),
    ms("from start to listening, p50", quantile(starts, 0.5)),
    ms("from start to listening, p99", quantile(starts, 0.99)),
    ms("opening a log again, p50", quantile(reopenings, 0.5)),
    ms("opening a log again, p99", quantile(reopenings, 0.99), 100),
  ];
  console.log(table(figures));
  console.log(String(anomalies));
  return anomalies.total === 0 ? 0 : 1;
}
