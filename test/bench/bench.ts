/**
 * Measures the server beside the least that anything could cost on this machine, now: each floor
 * runs right before what it is compared with. Prints a table; never part of the tests.
 */
import { cpus, loadavg, release } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { approvals } from "./approvals.ts";
import { console as webConsole } from "./console.ts";
import { type Figure, holds, table } from "./figure.ts";
import { firstToken } from "./first-token.ts";
import { health } from "./health.ts";
import { history } from "./history.ts";
import { idle } from "./idle.ts";
import { Lab } from "./lab.ts";
import { latency } from "./latency.ts";
import { memory } from "./memory.ts";
import { noisyAgent } from "./noisy-agent.ts";
import { pipeline } from "./pipeline.ts";
import { requests } from "./requests.ts";
import { slowSubscriber } from "./slow-subscriber.ts";
import { startup } from "./startup.ts";

const rows = {
  pipeline,
  latency,
  approvals,
  "first-token": firstToken,
  requests,
  memory,
  startup,
  history,
  health,
  idle,
  "slow-subscriber": slowSubscriber,
  "noisy-agent": noisyAgent,
  console: webConsole,
} satisfies Record<string, (lab: Lab) => Promise<Figure[]>>;

const usage = `bun run bench [options]
  --only NAME     of ${Object.keys(rows).join(", ")}; may be repeated
  --binary FILE   measure a compiled server instead of src/main.ts
  --seconds N     how long one subscriber reads nothing (30)
  --json FILE     write the figures there too
  --strict        exit with 1 when a budget is exceeded`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      only: { type: "string", multiple: true },
      binary: { type: "string" },
      seconds: { type: "string", default: "30" },
      json: { type: "string" },
      strict: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  const { only, binary } = values;
  const unknown = only?.find((name) => !Object.hasOwn(rows, name));
  if (values.help || unknown !== undefined) {
    console.log(usage);
    return values.help ? 0 : 2;
  }
  const source = [process.execPath, join(import.meta.dir, "../../src/main.ts")];
  const command = binary === undefined ? source : [binary];
  using lab = new Lab({ command, seconds: Number(values.seconds) });
  const [busy = 0] = loadavg();
  const { figures, broken } = await measure(lab, only);
  const machine = `${cpus().length} × ${cpus()[0]?.model}, ${process.platform} ${release()}, Bun ${Bun.version}`;
  console.log(`${machine}; load ${busy.toFixed(1)} before the start`);
  console.log("Server, clients and agent share these processors.\n");
  console.log(table(figures));
  if (values.json !== undefined)
    await Bun.write(values.json, `${JSON.stringify({ machine, load: busy, figures }, null, 2)}\n`);
  const over = figures.filter((figure) => !holds(figure)).length;
  console.log(`\n${figures.length} figures, ${over} over budget, ${broken} rows not measured`);
  return values.strict && over + broken > 0 ? 1 : 0;
}

/** A row that cannot be measured keeps none of the others from it. */
async function measure(lab: Lab, only: readonly string[] | undefined) {
  const figures: Figure[] = [];
  let broken = 0;
  for (const [name, row] of Object.entries(rows)) {
    if (only && !only.includes(name)) continue;
    const begin = performance.now();
    try {
      figures.push(...(await row(lab)));
    } catch (error) {
      broken += 1;
      console.error(`${name}:`, error);
    }
    console.error(`${name}: ${Math.round((performance.now() - begin) / 1000)} s`);
  }
  return { figures, broken };
}

process.exit(await main());
