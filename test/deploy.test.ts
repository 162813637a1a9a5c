import { expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { metrics } from "../src/contract/metrics.ts";
import { options } from "../src/contract/options.ts";

const folder = join(import.meta.dir, "../deploy");
const text = (name: string) => Bun.file(join(folder, name)).text();
/** Every series that there is: a histogram is three. */
const series = new Set(
  Object.entries(metrics).flatMap(([name, { kind }]) =>
    (kind === "histogram" ? ["_bucket", "_sum", "_count"] : [""]).map(
      (suffix) => `pocket_agent_${name}${suffix}`,
    ),
  ),
);

test.each(["grafana-dashboard.json", "prometheus-alerts.yaml"])(
  "%s asks for series that the server has, and only those",
  async (name) => {
    const named = (await text(name)).match(/\bpocket_agent_\w+/g) ?? [];
    expect(named.length).toBeGreaterThan(5);
    expect(named.filter((metric) => !series.has(metric))).toEqual([]);
  },
);

test("the dashboard shows every metric but the version", async () => {
  const dashboard = await text("grafana-dashboard.json");
  const missing = Object.keys(metrics).filter(
    (name) => !dashboard.includes(`pocket_agent_${name}`),
  );
  expect(missing).toEqual([]);
});

test("what is deployed sets only settings that there are", async () => {
  const variables = new Set<string>(Object.values(options).map(({ env }) => env));
  for (const name of readdirSync(folder)) {
    // oxlint-disable-next-line no-await-in-loop -- few and small
    const used = (await text(name)).match(/\bPA_[A-Z_]+/g) ?? [];
    expect(used.filter((variable) => !variables.has(variable))).toEqual([]);
  }
});

test("the compose file and the alerts are YAML, and the image is not root's", async () => {
  expect(Bun.YAML.parse(await text("compose.yaml"))).toMatchObject({ services: {} });
  expect(Bun.YAML.parse(await text("prometheus-alerts.yaml"))).toMatchObject({ groups: [{}] });
  const dockerfile = await text("Dockerfile");
  expect(dockerfile.match(/^FROM /gm)).toHaveLength(2);
  expect(dockerfile.lastIndexOf("\nUSER node")).toBeGreaterThan(dockerfile.lastIndexOf("\nFROM"));
  expect(dockerfile).toContain("HEALTHCHECK");
});
