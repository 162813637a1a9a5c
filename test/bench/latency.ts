import { compare, type Figure, type Pair } from "./figure.ts";
import type { Lab } from "./lab.ts";

const rounds = 4;
const feed = { lines: 500, bytes: 300, rate: 200 };

/** What passing through the server adds, from the agent's stdout to the client's socket. */
export async function latency(lab: Lab): Promise<Figure[]> {
  await using floor = await lab.pipeline();
  await using server = await lab.server();
  const project = await server.project();
  const p50: Pair[] = [];
  const p99: Pair[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const job = { kind: "stream", subscribers: 1, feed } as const;
    const least = await lab.run({ ...job, url: floor.url, project: null });
    const ours = await lab.run({ ...job, url: server.url, project });
    if (round === 0) continue;
    p50.push({ floor: least["p50"] ?? Number.NaN, ours: ours["p50"] ?? Number.NaN });
    p99.push({ floor: least["p99"] ?? Number.NaN, ours: ours["p99"] ?? Number.NaN });
  }
  const what = "latency, agent's stdout → client's socket, 200 lines/s";
  return [
    compare(p50, "difference", { what: `${what}, p50`, unit: "ms", budget: { most: 0.2 } }),
    compare(p99, "difference", { what: `${what}, p99`, unit: "ms", budget: { most: 2 } }),
  ];
}
