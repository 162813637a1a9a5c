import { compare, digits, type Figure, median, type Pair } from "./figure.ts";
import type { Lab } from "./lab.ts";
import type { Program } from "./program.ts";

const rounds = 4;
/** Lines of a round, so many that it takes about a second. */
const cases = [
  { subscribers: 1, bytes: 300, lines: 100_000 },
  { subscribers: 10, bytes: 300, lines: 50_000 },
  { subscribers: 100, bytes: 300, lines: 8_000 },
  { subscribers: 1, bytes: 3_000, lines: 25_000 },
  { subscribers: 10, bytes: 3_000, lines: 15_000 },
  { subscribers: 100, bytes: 3_000, lines: 3_000 },
];

/** Agent's line → log → subscribers, as fast as it goes. */
export async function pipeline(lab: Lab): Promise<Figure[]> {
  await using floor = await lab.pipeline();
  await using server = await lab.server();
  const project = await server.project();
  const figures: Figure[] = [];
  for (const { subscribers, bytes, lines } of cases) {
    const pass = async (url: string, to: { program: Program; project: string | null }) => {
      const before = to.program.usage.cpuMs;
      const job = { kind: "stream", url, project: to.project, subscribers } as const;
      const { ms = Number.NaN } = await lab.run({ ...job, feed: { lines, bytes } });
      return {
        rate: (lines / ms) * 1000,
        cpuUs: ((to.program.usage.cpuMs - before) * 1000) / lines,
      };
    };
    const pairs: Pair[] = [];
    const cpu: Pair[] = [];
    for (let round = 0; round < rounds; round += 1) {
      const least = await pass(floor.url, { program: floor.program, project: null });
      const ours = await pass(server.url, { program: server.program, project });
      // The first round is for the compilers of both.
      if (round === 0) continue;
      pairs.push({ floor: least.rate, ours: ours.rate });
      cpu.push({ floor: least.cpuUs, ours: ours.cpuUs });
    }
    const deliveries = median(pairs.map(({ ours }) => ours)) * subscribers;
    const [least, ours] = [cpu.map((pair) => pair.floor), cpu.map((pair) => pair.ours)];
    figures.push(
      compare(pairs, "ratio", {
        what: `agent line → log → ${subscribers} subscribers, ${bytes} B`,
        unit: "lines/s",
        budget: { least: 0.8 },
        note: `${digits(deliveries)} deliveries/s; processor ${digits(median(least))} → ${digits(median(ours))} µs a line`,
      }),
    );
  }
  return figures;
}
