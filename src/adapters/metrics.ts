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

/** The metrics table, counted in memory. prom-client's own collectors are wrong under Bun. */
export class Metrics implements Omit<Telemetry, "log"> {
  readonly #registry = new Registry();
  readonly #counters = new Map<string, Counter>();
  readonly #gauges = new Map<string, Gauge>();
  readonly #histograms = new Map<string, Histogram>();
  /** `labels()` of prom-client sorts and joins at each call; a line of the agent cannot afford it. */
  readonly #series = new Map<string, { inc: (by: number) => void }>();

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
    let series = this.#series.get(key);
    if (!series) {
      series = this.#counters.get(metric)?.labels(values);
      if (!series) return;
      this.#series.set(key, series);
    }
    series.inc(by);
  }

  gauge<M extends GaugeName>(metric: M, labels: Labels<M>, value: number): void {
    this.#gauges.get(metric)?.set(labels, value);
  }

  observe<M extends HistogramName>(metric: M, labels: Labels<M>, value: number): void {
    this.#histograms.get(metric)?.observe(labels, value);
  }

  /** Prometheus text format. */
  text(): Promise<string> {
    return this.#registry.metrics();
  }

  get contentType(): string {
    return this.#registry.contentType;
  }
}
