/** One line of the table: something of ours, beside the least that it could cost. */
export interface Figure {
  readonly what: string;
  readonly unit: string;
  /** Measured in the same run; null where there is nothing to compare with. */
  readonly floor: number | null;
  readonly ours: number;
  /** How `result` came about. */
  readonly by: "ratio" | "difference" | "value";
  readonly result: number;
  readonly budget: { readonly least?: number; readonly most?: number } | null;
  readonly note?: string;
}

/** A floor and ours, measured right after one another. */
export interface Pair {
  readonly floor: number;
  readonly ours: number;
}

type About = Pick<Figure, "what" | "unit" | "budget" | "note">;

/** What several pairs say: the median of their ratios or differences. */
export function compare(pairs: readonly Pair[], by: "ratio" | "difference", about: About): Figure {
  const result = median(
    pairs.map(({ floor, ours }) => (by === "ratio" ? ours / floor : ours - floor)),
  );
  const floor = median(pairs.map((pair) => pair.floor));
  return { ...about, by, result, floor, ours: median(pairs.map(({ ours }) => ours)) };
}

/** A figure that is compared with its budget alone. */
export function value(ours: number, about: About): Figure {
  return { ...about, by: "value", result: ours, floor: null, ours };
}

/** Whether a figure is within its budget. */
export function holds({ result, budget }: Figure): boolean {
  const { least = -Infinity, most = Infinity } = budget ?? {};
  return result >= least && result <= most;
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** The value that a share of all values does not exceed. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

const columns = ["what", "floor", "ours", "result", "budget", "", "note"] as const;

/** The figures as lines of text, under their headings. */
export function table(figures: readonly Figure[]): string {
  const rows = [columns, ...figures.map(cells)];
  const widths = columns.map((_, at) => Math.max(...rows.map((row) => row[at]?.length ?? 0)));
  return rows
    .map((row) =>
      row
        .map((cell, at) => cell.padEnd(widths[at] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

function cells(figure: Figure): string[] {
  const { what, unit, floor, ours, by, result, budget, note = "" } = figure;
  const shown = { ratio: "×", difference: unit, value: unit }[by];
  const { least, most } = budget ?? {};
  const limits = [
    ...(least === undefined ? [] : [`≥ ${least}`]),
    ...(most === undefined ? [] : [`≤ ${by === "difference" ? "+" : ""}${most}`]),
  ];
  return [
    what,
    floor === null ? "–" : `${digits(floor)} ${unit}`,
    `${digits(ours)} ${unit}`,
    by === "value"
      ? ""
      : `${by === "difference" && result >= 0 ? "+" : ""}${digits(result)} ${shown}`,
    limits.length === 0 ? "–" : `${limits.join(", ")} ${shown}`,
    budget === null ? "" : holds(figure) ? "ok" : "OVER",
    note,
  ];
}

/** Three digits that count, and no more zeros than needed. */
export function digits(number: number): string {
  if (!Number.isFinite(number)) return "?";
  const size = Math.abs(number);
  if (size >= 1000) return Math.round(number).toLocaleString("en");
  return String(Number(number.toPrecision(3)));
}
