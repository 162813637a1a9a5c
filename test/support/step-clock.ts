/** Preloaded into a server: each SIGUSR2 sets the clock of the machine, as far as it can see it. */
const hour = 3_600_000;
const steps = [hour, -2 * hour, 48 * hour, -1, -72 * hour, 1, 500, -999];
const Real = Date;
let offset = 0;
let step = 0;

class Stepped extends Real {
  constructor(...given: readonly [] | readonly [number | string | Date]) {
    super(given[0] ?? Real.now() + offset);
  }

  static override now(): number {
    return Real.now() + offset;
  }
}

Reflect.set(globalThis, "Date", Stepped);
process.on("SIGUSR2", () => {
  offset += steps[step % steps.length] ?? 0;
  step += 1;
});
