import { compare, type Figure, type Pair, value } from "./figure.ts";
import type { Lab } from "./lab.ts";
import { LogMaker } from "./log-maker.ts";

const rounds = 4;
const files = 100;
const recordsPerFile = 10_000;
const job = { kind: "ask", clients: 1, requests: 300 } as const;

/** The newest page of a very long history, beside reading just those bytes. */
export async function history(lab: Lab): Promise<Figure[]> {
  const home = lab.folder();
  const { project, newest } = await fill(lab, home);
  await using server = await lab.server({}, home);
  const message = { type: "get_messages", project_id: project, data: { limit: 1000 } };
  const client = await server.client();
  const page = await client.expect("messages_response", "get_messages", message);
  const { messages } = page.data;
  if (messages.length !== 1000) throw new Error(`Cannot measure: ${messages.length} came`);
  const bytes = messages.reduce((sum, record) => sum + JSON.stringify(record).length + 1, 0);
  await using floor = await lab.floor("answer", newest, String(bytes));
  const pairs: Pair[] = [];
  const before = server.program.usage.rssMb;
  for (let round = 0; round < rounds; round += 1) {
    // What comes from the end of the file begins with a record.
    const least = await lab.run({ ...job, message, url: floor.url, answer: "" });
    const ours = await lab.run({ ...job, message, url: server.url, answer: "messages_response" });
    if (round > 0)
      pairs.push({ floor: least["p50"] ?? Number.NaN, ours: ours["p50"] ?? Number.NaN });
  }
  const what = "get_messages, newest 1000 of 1,000,000";
  return [
    compare(pairs, "ratio", { what: `${what}, p50`, unit: "ms", budget: { most: 3 } }),
    value(server.program.usage.rssMb - before, {
      what: `${what}, growth of memory in ${rounds * job.requests} requests`,
      unit: "MB",
      budget: { most: 64 },
    }),
  ];
}

async function fill(lab: Lab, home: string) {
  await using server = await lab.server({}, home);
  const project = await server.project();
  await server[Symbol.asyncDispose]();
  const maker = new LogMaker(server.dataDir, project);
  let newest = "";
  for (let made = 0; made < files; made += 1) newest = maker.full(recordsPerFile);
  return { project, newest };
}
