/** A duration as people read it: `0.8 s`, `42 s`, `3 min 5 s`, `2 h 4 min`. */
export function duration(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** An amount of dollars; small ones keep their first digits. */
export function cost(usd: number): string {
  if (usd === 0) return "$0";
  return usd < 0.1 ? `$${usd.toPrecision(2)}` : `$${usd.toFixed(2)}`;
}

/** How long ago: `now`, `5 min ago`, `3 h ago`, or the date. */
export function ago(instant: string, now = Date.now()): string {
  const minutes = Math.floor((now - Date.parse(instant)) / 60_000);
  if (minutes < 1) return "now";
  if (minutes < 60) return `${minutes} min ago`;
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ago`;
  return new Date(instant).toLocaleDateString();
}

/** The last name of a path. */
export function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1) || path;
}

/** How much there is of a text: `12 lines`, `2,431 lines, 120 kB`. */
export function extent(text: string): string {
  const lines = text.split("\n").length;
  const size = text.length < 2_000 ? "" : `, ${Math.round(text.length / 1000).toLocaleString()} kB`;
  return `${lines.toLocaleString()} ${lines === 1 ? "line" : "lines"}${size}`;
}

/** Whether a text may be longer than the place where it is shown; then its extent is said. */
export function isLong(text: string): boolean {
  return text.length > 500 || text.split("\n").length > 8;
}
