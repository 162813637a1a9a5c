import { join } from "node:path";
import { compare, digits, type Figure, median, type Pair } from "./figure.ts";
import type { Lab } from "./lab.ts";

const rounds = 4;
const projects = 100;
const job = {
  kind: "ask",
  clients: 100,
  requests: 3_000,
  message: { type: "project_list", request_id: "r1" },
  answer: "project_list_response",
} as const;

/** The time that `project_list` takes when 100 clients ask at once, and again when answered. */
export async function requests(lab: Lab): Promise<Figure[]> {
  await using server = await lab.server({ PA_MAX_PROJECTS: String(projects) });
  for (let made = 0; made < projects; made += 1) await server.project();
  const client = await server.client();
  const reply = JSON.stringify(await client.expect("project_list_response", "project_list"));
  const file = join(lab.folder(), "reply.json");
  await Bun.write(file, reply);
  await using floor = await lab.floor("answer", file);
  const pairs: Pair[] = [];
  const rates: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const least = await lab.run({ ...job, url: floor.url });
    const ours = await lab.run({ ...job, url: server.url });
    if (round === 0) continue;
    pairs.push({ floor: least["p99"] ?? Number.NaN, ours: ours["p99"] ?? Number.NaN });
    rates.push((job.requests / (ours["ms"] ?? Number.NaN)) * 1000);
  }
  return [
    compare(pairs, "ratio", {
      what: "request → reply, project_list of 100 projects, 100 clients, p99",
      unit: "ms",
      budget: { most: 3 },
      note: `${digits(median(rates))} replies/s of ${digits(reply.length / 1024)} KiB`,
    }),
  ];
}
