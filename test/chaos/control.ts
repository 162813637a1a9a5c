import { audit, type Log } from "./audit.ts";
import { Anomalies } from "./anomalies.ts";
import type { Chaos } from "./world.ts";

type Line = Log["records"][number];

/** Whether a line of a log is what was made of this prompt. */
const isIt = (line: string, id: string) => !line.includes(`"claude"`) && line.includes(`${id}"`);

/** Tells the checks three lies, and gives 1, as for anomalies, if they see through all of them. */
export function control(chaos: Chaos, logs: readonly Log[]): number {
  const dropped = chaos.anomalies.count("out of order");
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

/** The logs with one acknowledged prompt replaced. */
function changed(logs: readonly Log[], chaos: Chaos, by: (line: Line) => Line[]): Log[] {
  const ids = chaos.orders.prompts.flatMap(({ execution_id, outcome }) =>
    outcome === "acknowledged" ? [execution_id] : [],
  );
  const texts = new Map(
    logs.map((log) => [log, log.records.map((record) => JSON.stringify(record))] as const),
  );
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
