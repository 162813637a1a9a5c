const ticks = 5;

/**
 * A clock in microseconds that all processes of the machine share. Bun's finer clocks each count
 * from the start of their process, and `performance.timeOrigin` is only good to a millisecond.
 */
export function sharedClock(): () => number {
  let offset = -Infinity;
  for (let tick = 0; tick < ticks; tick += 1) {
    const before = Date.now();
    let now = before;
    while (now === before) now = Date.now();
    // Whoever looks late sees too small an offset.
    offset = Math.max(offset, now - performance.now());
  }
  return () => Math.round((offset + performance.now()) * 1000);
}
