import { Counter, Gauge, Histogram, Registry } from "prom-client";
import {
  type CounterName,
  type GaugeName,
  type HistogramName,
  type Labels,
  metrics,
} from "../contract/metrics.ts";
import type { Telemetry } from "../core/ports.ts";

type Values = Readonly<Record<string, string>>;

/** One set of label values of a counter, and what was counted since it was last read. */
interface Series {
  readonly counter: Counter | undefined;
  readonly values: Values;
  pending: number;
}

/** The metrics table, counted in memory. prom-client's own collectors are wrong under Bun. */
export class Metrics implements Omit<Telemetry, "log"> {
  readonly #registry = new Registry();
  readonly #counters = new Map<string, Counter>();
  readonly #gauges = new Map<string, Gauge>();
  readonly #histograms = new Map<string, Histogram>();
  /** Each `inc` of prom-client hashes the labels anew; a line of the agent cannot afford it. */
  readonly #series = new Map<string, Series>();

  constructor() {
    for (const [metric, row] of Object.entries(metrics)) {
      const { kind, about: help, labels } = row;
      const options = {
        name: `pocket_agent_${metric}`,
        help,
        labelNames: [...labels],
        registers: [this.#registry],
      };
      if (kind === "gauge") this.#gauges.set(metric, new Gauge(options));
      if (kind === "histogram")
        this.#histograms.set(metric, new Histogram({ ...options, buckets: [...row.buckets] }));
      if (kind !== "counter") continue;
      const counter = new Counter(options);
      this.#counters.set(metric, counter);
      const [label] = labels;
      const values = "values" in row ? row.values : [];
      if (label) for (const value of values) counter.inc({ [label]: value }, 0);
    }
  }

  count<M extends CounterName>(metric: M, labels: Labels<M>, by = 1): void {
    const values: Values = labels;
    let key: string = metric;
    for (const name in values) key += `\0${values[name]}`;
    const series = this.#series.get(key);
    if (series) series.pending += by;
    else this.#series.set(key, { counter: this.#counters.get(metric), values, pending: by });
  }

  gauge<M extends GaugeName>(metric: M, labels: Labels<M>, value: number): void {
    this.#gauges.get(metric)?.set(labels, value);
  }

  observe<M extends HistogramName>(metric: M, labels: Labels<M>, value: number): void {
    this.#histograms.get(metric)?.observe(labels, value);
  }

  /** Prometheus text format. */
  text(): Promise<string> {
    for (const series of this.#series.values()) {
      series.counter?.inc(series.values, series.pending);
      series.pending = 0;
    }
    return this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }
}
