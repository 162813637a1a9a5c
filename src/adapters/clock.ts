import type { Clock } from "../core/ports.ts";

/** The real time. */
export const systemClock: Clock = {
  now: () => new Date(),
  monotonic: () => performance.now(),
  after(ms, task) {
    const timer = setTimeout(task, ms);
    return { [Symbol.dispose]: () => clearTimeout(timer) };
  },
  soon: (task) => void setImmediate(task),
};
