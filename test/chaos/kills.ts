import type { Chaos } from "./world.ts";

/** Kills the server with SIGKILL so many times, at random moments. */
export async function kills(chaos: Chaos, rounds: number): Promise<void> {
  const { random } = chaos;
  for (let round = 1; round <= rounds; round += 1) {
    if (random.chance(0.1)) {
      await chaos.startAndKill(random.between(10, 150));
      chaos.earlyKills += 1;
      chaos.kills += 1;
    }
    const server = await chaos.start();
    await chaos.visits(server.url, async () => {
      await Bun.sleep(random.between(50, 600));
      if (round % 5 === 0) await chaos.expectSwept();
      await server.crash();
    });
    chaos.gone();
    chaos.kills += 1;
    if (process.stderr.isTTY) process.stderr.write(`\rround ${round} of ${rounds}`);
  }
}
