import { type Figure, value } from "./figure.ts";
import type { Lab } from "./lab.ts";
import { Probe } from "./probe.ts";

const megabytes = 1024;
const noises = [
  { what: "stdout in lines of 32 MiB", lineBytes: 32 * 1024 * 1024, fd: 1 },
  { what: "stdout that is not JSON, in lines of 64 KiB", lineBytes: 64 * 1024, fd: 1 },
  { what: "stderr", lineBytes: 4_096, fd: 2 },
] as const;

/** An agent that writes a gigabyte of something useless: memory stays, and health answers. */
export async function noisyAgent(lab: Lab): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const { what: kind, lineBytes, fd } of noises) {
    await using server = await lab.server();
    const project = await server.project();
    const job = { kind: "stream", url: server.url, project, subscribers: 1 } as const;
    await lab.run({ ...job, feed: { lines: 1_000, bytes: 300 } });
    await using probe = new Probe(server);
    const { ms } = await lab.run({
      ...job,
      feed: { lines: 1_000, bytes: 300, noise: { megabytes, lineBytes, fd } },
    });
    const what = `agent writes 1 GB to ${kind}`;
    const mbPerS = Math.round(megabytes / ((ms ?? Number.NaN) / 1000));
    figures.push(
      value(probe.growthMb, {
        what: `${what}: growth of memory`,
        unit: "MB",
        budget: { most: 64 },
        note: `${mbPerS} MB/s`,
      }),
      value(probe.slowest, {
        what: `${what}: slowest health`,
        unit: "ms",
        budget: { most: 1_000 },
      }),
    );
  }
  return figures;
}
