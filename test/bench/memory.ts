import { join } from "node:path";
import { compare, type Figure, type Pair } from "./figure.ts";
import type { Lab } from "./lab.ts";
import type { Program } from "./program.ts";

const rounds = 3;
/** As many as would be open at the same time on a bad day. */
const connections = 10_000;
/** Until what a start or a connect has thrown away is collected. */
const settleMs = 1_000;

/** Memory of a server that does nothing, and of each connection that does nothing. */
export async function memory(lab: Lab): Promise<Figure[]> {
  const listening: Pair[] = [];
  const plain: Pair[] = [];
  const secure: Pair[] = [];
  for (let round = 0; round < rounds; round += 1) {
    {
      await using floor = await lab.floor("hello");
      await using server = await lab.server();
      await Bun.sleep(settleMs);
      listening.push({ floor: floor.program.usage.rssMb, ours: server.program.usage.rssMb });
      plain.push({ floor: await each(lab, floor), ours: await each(lab, server) });
    }
    await using server = await lab.server({ PA_TLS_ENABLED: "true" });
    const files = ["server.crt", "server.key"].map((name) => join(server.dataDir, "certs", name));
    await using floor = await lab.floor("hello", ...files);
    secure.push({ floor: await each(lab, floor), ours: await each(lab, server) });
  }
  const budget = { most: 2 };
  return [
    compare(listening, "difference", {
      what: "memory at listen, beside hello world in hono",
      unit: "MB",
      budget: { most: 15 },
    }),
    compare(plain, "ratio", { what: "memory of an idle ws, of 10,000", unit: "KB", budget }),
    compare(secure, "ratio", { what: "memory of an idle wss, of 10,000", unit: "KB", budget }),
  ];
}

/** Kilobytes that each of many idle connections adds. */
async function each(lab: Lab, to: { url: string; program: Program }): Promise<number> {
  const before = to.program.usage.rssMb;
  await using load = lab.load({ kind: "hold", url: to.url, project: null, clients: connections });
  await load.next("ready");
  await Bun.sleep(settleMs);
  return ((to.program.usage.rssMb - before) * 1024) / connections;
}
