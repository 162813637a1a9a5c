import { existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { digits, type Figure, median, table, value } from "../bench/figure.ts";
import type { ServerProcess } from "../support/server-process.ts";
import type { Chaos } from "./world.ts";

/** What a server holds on to at some time; `at` in seconds. */
interface Sample {
  readonly at: number;
  readonly rss: number;
  readonly heap: number;
  readonly descriptors: number;
  readonly timers: number;
}

const everyMs = 30_000;
/** What comes before this share of the time is warming up. */
const warmUp = 1 / 3;
const mb = 2 ** 20;

/** Has clients at work for so many minutes, and judges whether the server stays as large as it is. */
export async function soak(chaos: Chaos, minutes: number): Promise<Figure[]> {
  const counts = join(chaos.home, "counts.json");
  const server = await chaos.start({
    // A queue that is soon full: after that, nothing has a reason to grow.
    PA_EXECUTION_QUEUE_SIZE: "50",
    PA_LOG_ROTATION_COUNT: "10000",
    BUN_OPTIONS: `--preload=${join(import.meta.dir, "..", "support", "count-on-signal.ts")}`,
    COUNTS: counts,
  });
  const samples: Sample[] = [];
  const begin = performance.now();
  await chaos.visits(server.url, async () => {
    while (performance.now() - begin < minutes * 60_000) {
      await Bun.sleep(everyMs);
      const at = (performance.now() - begin) / 1000;
      samples.push({ at, ...(await look(server, counts)) });
      console.log(line(samples.at(-1)));
    }
    await chaos.stop(server);
  });
  return judge(samples.slice(Math.floor(samples.length * warmUp)));
}

async function look(server: ServerProcess, path: string): Promise<Omit<Sample, "at">> {
  rmSync(path, { force: true });
  server.signal("SIGUSR2");
  while (!existsSync(path)) await Bun.sleep(10);
  return JSON.parse(readFileSync(path, "utf8"));
}

function line(sample: Sample | undefined): string {
  if (!sample) return "";
  const { at, rss, heap, descriptors, timers } = sample;
  const [resident, own] = [rss, heap].map((bytes) => `${(bytes / mb).toFixed(1)} MB`);
  return `${at.toFixed(0)} s: RSS ${resident}, heap ${own}, ${descriptors} descriptors, ${timers} timers`;
}

/** By how much each has grown over the time that is judged, and whether that is nothing. */
function judge(samples: readonly Sample[]): Figure[] {
  const seconds = (samples.at(-1)?.at ?? 0) - (samples[0]?.at ?? 0);
  const growth = (
    of: (sample: Sample) => number,
    what: string,
    budget: (usual: number) => number,
  ) => {
    const usual = median(samples.map(of));
    const about = {
      what: `growth of ${what} after warming up`,
      note: `from about ${digits(usual)}`,
    };
    const most = Number(digits(budget(usual)));
    return value(slope(samples, of) * seconds, { ...about, unit: "", budget: { most } });
  };
  const figures = [
    growth(
      ({ rss }) => rss / mb,
      "RSS in MB",
      (usual) => usual / 10,
    ),
    growth(
      ({ heap }) => heap / mb,
      "the heap in MB",
      () => 3,
    ),
    // A project more or less is a log more or less, and an agent three pipes.
    growth(
      ({ descriptors }) => descriptors,
      "open descriptors",
      () => 10,
    ),
    growth(
      ({ timers }) => timers,
      "timers",
      () => 10,
    ),
  ];
  console.log(table(figures));
  return figures;
}

/** The median of the slopes between any two samples, which a peak here or there does not change. */
function slope(samples: readonly Sample[], of: (sample: Sample) => number): number {
  const slopes = samples.flatMap((from, at) =>
    samples.slice(at + 1).map((to) => (of(to) - of(from)) / (to.at - from.at)),
  );
  return slopes.length === 0 ? 0 : median(slopes);
}
