import { join } from "node:path";
import type { Chaos } from "./world.ts";

const everyMs = 150;

/** Clients work while the server's clock jumps to and fro; then it is killed, and the clock is right again. */
export async function clockSteps(chaos: Chaos, seconds: number): Promise<void> {
  const server = await chaos.start({
    BUN_OPTIONS: `--preload=${join(import.meta.dir, "..", "support", "step-clock.ts")}`,
    PA_LOG_ROTATION_COUNT: "100",
  });
  let steps = 0;
  await chaos.visits(server.url, async () => {
    for (const until = performance.now() + seconds * 1000; performance.now() < until; steps += 1) {
      await Bun.sleep(everyMs);
      server.signal("SIGUSR2");
    }
    await server.crash();
  });
  chaos.gone();
  chaos.kills += 1;
  chaos.faults["clock: steps"] = steps;
}
