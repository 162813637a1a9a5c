import { join } from "node:path";
import type { Page } from "playwright-core";
import * as v from "valibot";
import { Browser, phone } from "../support/browser.ts";
import { type Figure, quantile, value } from "./figure.ts";
import type { Lab, Server } from "./lab.ts";
import { LogMaker } from "./log-maker.ts";

const records = 10_000;
const deltas = 1_000;
const fakeClaude = join(import.meta.dir, "../support/fake-claude.ts");

/** The web console in a real browser: a long conversation, and an agent that writes fast. */
export async function console(lab: Lab): Promise<Figure[]> {
  const home = lab.folder();
  const project = await fill(lab, home);
  await using server = await lab.server({ PA_CLAUDE_BINARY: fakeClaude }, home);
  await using browser = await Browser.start(["--js-flags=--expose-gc"]);
  const page = await browser.open(new URL(`#/projects/${project}`, server.url), phone);
  await newest(page).waitFor();
  // Once more: what is measured is the page, and not the browser's own start.
  const begin = performance.now();
  await page.reload();
  await newest(page).waitFor();
  const first = performance.now() - begin;
  const { growthMb, most } = await scrollThrough(page);
  const delays = await whileWriting(page, { server, project });
  const about = `console, ${records.toLocaleString("en")} events`;
  return [
    value(first, { what: `${about}: first screen`, unit: "ms", budget: { most: 1_000 } }),
    value(growthMb, {
      what: `${about}: growth of memory by reading all`,
      unit: "MB",
      budget: { most: 64 },
    }),
    value(most, { what: `${about}: items in the page`, unit: "", budget: { most: 120 } }),
    value(quantile(delays, 0.99), {
      what: `console, 200 deltas/s for ${deltas / 200} s: p99 of its answers`,
      unit: "ms",
      budget: { most: 50 },
      note: `longest ${Math.round(Math.max(...delays))} ms`,
    }),
  ];
}

async function fill(lab: Lab, home: string): Promise<string> {
  await using server = await lab.server({}, home);
  const project = await server.project();
  await server[Symbol.asyncDispose]();
  new LogMaker(server.dataDir, project).full(records);
  return project;
}

function newest(page: Page) {
  return page.locator(`.item[data-key="${records}.0"]`);
}

/** Reads from the end to the beginning, as somebody would who does not stop. */
async function scrollThrough(page: Page) {
  const before = await heapMb(page);
  const box = page.getByRole("region", { name: "Conversation" });
  let most = 0;
  while ((await box.getByText("The beginning").count()) === 0) {
    await box.evaluate((element) => element.scrollBy(0, -2_000));
    most = Math.max(most, await page.locator(".item").count());
  }
  return { growthMb: (await heapMb(page)) - before, most };
}

async function heapMb(page: Page): Promise<number> {
  const used = "gc(), performance.memory.usedJSHeapSize / 1e6";
  return v.parse(v.number(), await page.evaluate(used));
}

/** How late a timer of 10 ms is while deltas come, each time. */
async function whileWriting(page: Page, { server, project }: { server: Server; project: string }) {
  await page.getByRole("button", { name: "Go to the end" }).click();
  await page.evaluate(`{
    globalThis.delays = [];
    let due = performance.now() + 10;
    globalThis.timer = setInterval(() => {
      delays.push(Math.max(0, performance.now() - due));
      due = performance.now() + 10;
    }, 10);
  }`);
  const client = await server.client();
  client.patienceMs = 60_000;
  await client.run(project, `stream:${deltas}:5`);
  await page.getByText(/^Done/).waitFor();
  return v.parse(v.array(v.number()), await page.evaluate("clearInterval(timer), delays"));
}
