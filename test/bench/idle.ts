import { type Figure, value } from "./figure.ts";
import type { Lab } from "./lab.ts";

const clients = 100;
const settleMs = 2_000;
/** Longer than the interval of `server_stats`. */
const watchMs = 12_000;

/** What a server with nothing to do takes of a processor. */
export async function idle(lab: Lab): Promise<Figure[]> {
  await using server = await lab.server();
  const project = await server.project();
  await using load = lab.load({ kind: "hold", url: server.url, project, clients });
  await load.next("ready");
  await Bun.sleep(settleMs);
  const before = server.program.usage.cpuMs;
  await Bun.sleep(watchMs);
  const percent = ((server.program.usage.cpuMs - before) / watchMs) * 100;
  return [
    value(percent, { what: "processor, idle with 100 clients", unit: "%", budget: { most: 0.5 } }),
  ];
}
