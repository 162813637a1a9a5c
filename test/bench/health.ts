import { type Figure, median, type Pair } from "./figure.ts";
import type { Lab } from "./lab.ts";
import { Probe } from "./probe.ts";

const rounds = 4;
const feed = { lines: 100_000, bytes: 300 };

/** How long `/health` takes while an agent floods, and while nothing happens. */
export async function health(lab: Lab): Promise<Figure[]> {
  await using server = await lab.server();
  const project = await server.project();
  const job = { kind: "stream", url: server.url, project, subscribers: 1, feed } as const;
  const pairs: Pair[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const floor = await during(server, () => Bun.sleep(1_000));
    const ours = await during(server, () => lab.run(job));
    if (round > 0) pairs.push({ floor, ours });
  }
  const ours = median(pairs.map((pair) => pair.ours));
  return [
    {
      what: "health during a flood of 100,000 lines, beside idle, p99",
      unit: "ms",
      floor: median(pairs.map((pair) => pair.floor)),
      ours,
      by: "value",
      result: ours,
      budget: { most: 30 },
    },
  ];
}

async function during(
  server: ConstructorParameters<typeof Probe>[0],
  work: () => Promise<unknown>,
) {
  await using probe = new Probe(server);
  await work();
  return probe.p99;
}
