import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { Anomalies } from "./anomalies.ts";
import { fingerprint, type Seen } from "./mirror.ts";
import type { Orders } from "./orders.ts";

/** One line of a log file, read without any code of the server's. */
interface LoggedRecord {
  readonly seq: number;
  readonly timestamp: string;
  readonly direction: string;
  readonly message: Readonly<Record<string, unknown>>;
}

/** A project's whole log, as it lies on the disk. */
export interface Log {
  readonly project: string;
  readonly records: readonly LoggedRecord[];
  readonly files: number;
  /** Tails that were cut off and kept. */
  readonly cut: number;
}

/** Reads every log there is. A line that is not JSON is an anomaly. */
export function readLogs(dataDir: string, anomalies: Anomalies): Log[] {
  const projects = join(dataDir, "projects");
  return readdirSync(projects).flatMap((project) => {
    if (!existsSync(join(projects, project, "metadata.json"))) {
      const names = readdirSync(join(projects, project), { recursive: true }).join(", ");
      anomalies.report("otherwise wrong", `${project} is no project, and holds: ${names}`);
      return [];
    }
    const folder = join(projects, project, "logs");
    const names = readdirSync(folder).filter((name) => name.endsWith(".jsonl"));
    const records = names.toSorted().flatMap((name) => readFile(join(folder, name), anomalies));
    const shelter = join(folder, "lost+found");
    const cut = existsSync(shelter) ? readdirSync(shelter).length : 0;
    return { project, records, files: names.length, cut };
  });
}

function readFile(path: string, anomalies: Anomalies): LoggedRecord[] {
  const lines = readFileSync(path, "utf8").split("\n");
  if (lines.pop() !== "") anomalies.report("otherwise wrong", `${path} ends in half a line`);
  return lines.flatMap((line, at): LoggedRecord[] => {
    try {
      return [JSON.parse(line)];
    } catch {
      anomalies.report("otherwise wrong", `line ${at + 1} of ${path} is not JSON`);
      return [];
    }
  });
}

/** Compares the logs with what clients were told and with what they saw. */
export function audit(
  logs: readonly Log[],
  { orders, seen, anomalies }: { orders: Orders; seen: Map<string, Seen>; anomalies: Anomalies },
): { compared: number } {
  let compared = 0;
  for (const log of logs) {
    checkOrder(log, anomalies);
    checkPrompts(log, orders, anomalies);
    compared += compareContents(log, seen.get(log.project) ?? new Map(), anomalies);
  }
  return { compared };
}

function checkOrder({ project, records }: Log, anomalies: Anomalies): void {
  let before = { seq: 0, timestamp: "" };
  for (const record of records) {
    if (record.seq !== before.seq + 1)
      anomalies.report("out of order", `${project} has ${record.seq} behind ${before.seq}`);
    if (record.timestamp < before.timestamp)
      anomalies.report("out of order", `${project} goes back in time at ${record.seq}`);
    before = record;
  }
}

/** Acknowledged prompts are there exactly once, refused ones never, all others at most once. */
function checkPrompts({ project, records }: Log, orders: Orders, anomalies: Anomalies): void {
  const started = new Map<string, number>();
  const queued = new Map<string, number>();
  const firstStart = new Map<string, string>();
  const taken = new Set<string>();
  for (const { direction, timestamp, message } of records) {
    if (message["type"] === "execution_cancelled") taken.add(idOf(message));
    if (message["type"] !== (direction === "client" ? "execute" : "execution_queued")) continue;
    const counts = direction === "client" ? started : queued;
    const id = idOf(message);
    counts.set(id, (counts.get(id) ?? 0) + 1);
    if (direction === "client" && !firstStart.has(id)) firstStart.set(id, timestamp);
  }
  const known = new Set<string>();
  for (const { execution_id: id, outcome, round, status, askedAt } of orders.prompts.filter(
    (order) => order.project === project,
  )) {
    known.add(id);
    const [starts, waits] = [started.get(id) ?? 0, queued.get(id) ?? 0];
    const what = `prompt ${id} of round ${round}, ${outcome},`;
    if (starts > 1 || waits > 1)
      anomalies.report("doubled", `${what} is in the log ${starts} times, queued ${waits} times`);
    if (outcome === "acknowledged" && starts + waits === 0)
      anomalies.report("lost", `${what} is not in the log`);
    // One that waited when the server was asked may have had its turn since.
    const before = askedAt !== undefined && (firstStart.get(id) ?? askedAt) < askedAt;
    const wrong = status === "queued" ? before || taken.has(id) : starts === 0 && !taken.has(id);
    if (status !== undefined && wrong)
      anomalies.report("lost", `${what} is ${status}, and was started ${starts} times`);
    if (outcome === "refused" && starts + waits > 0)
      anomalies.report("otherwise wrong", `${what} is in the log all the same`);
  }
  for (const id of [...started.keys(), ...queued.keys()])
    if (!known.has(id)) anomalies.report("otherwise wrong", `nobody sent the prompt ${id}`);
}

function idOf(message: LoggedRecord["message"]): string {
  const data: Readonly<Record<string, unknown>> = Object(message["data"]);
  return String(data["execution_id"]);
}

/** What a client has seen is what the log says, and is there. */
function compareContents({ project, records }: Log, seen: Seen, anomalies: Anomalies): number {
  const last = records.at(-1)?.seq ?? 0;
  for (const seq of seen.keys())
    if (seq > last) anomalies.report("lost", `event ${seq} of ${project} was seen, and is gone`);
  let compared = 0;
  for (const record of records) {
    const expected = seen.get(record.seq);
    if (expected === undefined) continue;
    compared += 1;
    if (fingerprint(eventOf(record)) !== expected)
      anomalies.report("out of order", `event ${record.seq} of ${project} was seen as another`);
  }
  return compared;
}

/** The event that a record is to clients. */
function eventOf({ direction, timestamp, message }: LoggedRecord) {
  if (direction === "claude") return { type: "agent_message", timestamp, data: message };
  const type = direction === "client" ? "user_message" : String(message["type"]);
  return { type, timestamp, data: message["data"] };
}
