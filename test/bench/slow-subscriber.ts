import { type Figure, value } from "./figure.ts";
import { type Lab, numbers } from "./lab.ts";
import { Probe } from "./probe.ts";

const bytes = 3_000;
const rate = 2_800;
const subscribers = 3;
/** The run without anybody slow need only be long enough for its p99. */
const controlSeconds = 10;

/** One subscriber reads nothing while 8 MB/s pass: nobody else notices, and it misses nothing. */
export async function slowSubscriber(lab: Lab): Promise<Figure[]> {
  await using server = await lab.server();
  const project = await server.project();
  const job = { kind: "stream", url: server.url, project, subscribers } as const;
  await lab.run({ ...job, feed: feed(1) });
  await using probe = new Probe(server);
  const control = await lab.run({ ...job, feed: feed(Math.min(controlSeconds, lab.seconds)) });

  await using load = lab.load({ ...job, stalled: 1, feed: feed(lab.seconds) });
  const others = numbers(await load.next("done"));
  const growth = probe.growthMb;
  const late = numbers(await load.next("level"));
  const what = `one of ${subscribers + 1} subscribers reads nothing for ${lab.seconds} s of 8 MB/s`;
  const ratio = (others["p99"] ?? Number.NaN) / (control["p99"] ?? Number.NaN);
  const breaks = (others["breaks"] ?? Number.NaN) + (late["breaks"] ?? Number.NaN);
  return [
    {
      what: `${what}: p99 of the others, beside none slow`,
      unit: "ms",
      floor: control["p99"] ?? Number.NaN,
      ours: others["p99"] ?? Number.NaN,
      by: "ratio",
      result: ratio,
      budget: { most: 2 },
    },
    value(growth, { what: `${what}: growth of memory`, unit: "MB", budget: { most: 64 } }),
    value(breaks, { what: `${what}: gaps and repeats`, unit: "", budget: { most: 0 } }),
    value((late["ms"] ?? Number.NaN) / 1000, {
      what: `${what}: level again after`,
      unit: "s",
      budget: null,
    }),
  ];
}

const feed = (seconds: number) => ({ lines: seconds * rate, bytes, rate });
