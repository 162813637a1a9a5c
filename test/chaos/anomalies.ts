const kinds = ["lost", "doubled", "out of order", "otherwise wrong"] as const;
type Kind = (typeof kinds)[number];

const shown = 20;

/** What should not have happened. */
export class Anomalies {
  readonly #sentences: string[] = [];
  readonly #counts = new Map<Kind, number>();

  report(kind: Kind, sentence: string): void {
    this.#counts.set(kind, this.count(kind) + 1);
    this.#sentences.push(`${kind}: ${sentence}`);
  }

  count(kind: Kind): number {
    return this.#counts.get(kind) ?? 0;
  }

  get total(): number {
    return this.#sentences.length;
  }

  /** The first few, and how many there are of each kind. */
  toString(): string {
    const summary = kinds.map((kind) => `${this.count(kind)} ${kind}`).join(", ");
    return [...this.#sentences.slice(0, shown), summary].join("\n");
  }
}
