import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { source as axe } from "axe-core";
import type { Page } from "playwright-core";
import * as v from "valibot";
import { testApp } from "./support/app.ts";
import { Browser, desk, phone } from "./support/browser.ts";

setDefaultTimeout(60_000);

let browser: Browser;
beforeAll(async () => {
  browser = await Browser.start();
});
afterAll(async () => await browser[Symbol.asyncDispose]());

/** A page that watches a project while an agent works in it, and what the page says of itself. */
async function watch(view: { width: number; height: number } = phone) {
  const app = await testApp();
  const client = await app.client();
  const path = await app.directory("shop");
  const data = { path, trusted: true };
  const { id } = (await client.expect("project_state", "project_create", { data })).data;
  const page = await browser.open(new URL(`#/projects/${id}`, app.url), view);
  await page.getByLabel("Prompt").waitFor();
  const run = async (prompt: string) =>
    await client.ask("execute", { project_id: id, data: { prompt, queue: true } });
  return { app, client, id, page, run, [Symbol.asyncDispose]: () => app[Symbol.asyncDispose]() };
}

async function done(page: Page): Promise<void> {
  await page.getByText(/^Done/).last().waitFor();
}

const markdown = [
  "<script>window.harm = 'script'</script>",
  "<img src=x onerror=\"window.harm = 'image'\">",
  "<svg onload=\"window.harm = 'svg'\"><a href='javascript:1'>x</a></svg>",
  "[click](javascript:window.harm='link') [data](data:text/html,<script>1</script>)",
  "![pic](https://tracker.example/pixel.png)",
  "<style>*{display:none}</style><iframe src='/'></iframe><form action='/x'><button>go</button></form>",
  "[fine](https://fine.example/page)",
];

test("nothing that an agent writes is anything but text", async () => {
  await using setup = await watch();
  const { page } = setup;
  const asked: string[] = [];
  page.on("request", (request) => asked.push(request.url()));
  for (const text of markdown) await setup.run(`say:${text}`);
  await setup.run(`tool:Bash:${JSON.stringify({ command: markdown.join("\n") })}`);
  const card = page.getByRole("region", { name: "The agent needs you" });
  await card.getByText("window.harm = 'script'").first().waitFor();
  const conversation = page.getByRole("region", { name: "Conversation" });
  expect(await conversation.locator("script, img, svg, style, iframe, form, object").count()).toBe(
    0,
  );
  expect(await card.locator("script, img, svg, style, iframe, form, object").count()).toBe(0);
  expect(await page.evaluate("window.harm")).toBeUndefined();
  const links = await conversation
    .locator("a")
    .evaluateAll((all) =>
      all.map((link) => [
        link.getAttribute("href"),
        link.getAttribute("rel"),
        link.getAttribute("referrerpolicy"),
        link.getAttribute("target"),
      ]),
    );
  const outside = ["noopener noreferrer", "no-referrer", "_blank"];
  expect(links).toEqual([
    ["https://tracker.example/pixel.png", ...outside],
    ["https://fine.example/page", ...outside],
  ]);
  // The page talks to nobody but its server.
  expect(asked.filter((url) => new URL(url).host !== setup.app.url.host)).toEqual([]);
  expect(browser.problems.splice(0)).toEqual([]);
});

test("what cannot be seen is made visible where somebody decides", async () => {
  await using setup = await watch();
  const command = "ls \u202e fr- mr \u200b\u0000\u001b[2K\r\u00a0x";
  const description = "safe\u2066";
  await setup.run(
    `tool:Bash:${JSON.stringify({ command, description, hidden_field: "seen\u061c" })}`,
  );
  const card = setup.page.getByRole("region", { name: "The agent needs you" });
  await card.getByText("hidden_field").waitFor();
  const text = (await card.textContent()) ?? "";
  for (const code of ["202E", "200B", "0000", "001B", "000D", "00A0", "2066", "061C"])
    expect(text).toContain(`U+${code}`);
  for (const hidden of ["\u202e", "\u200b", "\u0000", "\u001b", "\r", "\u2066", "\u061c"])
    expect(text).not.toContain(hidden);
  expect(browser.problems.splice(0)).toEqual([]);
});

test("all of a long input is there, and its length is said", async () => {
  await using setup = await watch();
  const content = `${Array.from({ length: 3_000 }, (_, line) => `line ${line} ${"x".repeat(20)}`).join("\n")}\nTHE END`;
  await setup.run(`tool:Write:${JSON.stringify({ file_path: "/tmp/a.txt", content })}`);
  const card = setup.page.getByRole("region", { name: "The agent needs you" });
  await card.getByText(/3,001 lines/).waitFor();
  while ((await card.getByRole("button", { name: /show more/ }).count()) > 0)
    await card.getByRole("button", { name: /show more/ }).click();
  await card.getByText(/THE END/).waitFor();
  expect(browser.problems.splice(0)).toEqual([]);
});

test("a block of 2 MB and a turn of 5,000 deltas leave the page alive", async () => {
  await using setup = await watch(desk);
  const { page } = setup;
  await setup.run("big:2000000");
  await done(page);
  await setup.run("stream:5000");
  await page.getByText(/^Done/).nth(1).waitFor();
  await page
    .getByRole("button", { name: /show more/ })
    .last()
    .click();
  await page
    .getByText(/w4998 w4999/)
    .first()
    .waitFor();
  await setup.run("say:still here");
  await page.getByText("still here").last().waitFor();
  await page.getByLabel("Prompt").fill("and it takes a prompt");
  expect(await page.getByLabel("Prompt").inputValue()).toBe("and it takes a prompt");
  expect(browser.problems.splice(0)).toEqual([]);
});

test("whatever shape an input has, it is shown and can be refused", async () => {
  await using setup = await watch();
  const shapes = [
    ["Bash", { command: { $: 1 }, description: ["x"] }],
    ["Edit", { file_path: 1, old_string: null, new_string: [] }],
    [
      "MultiEdit",
      { file_path: "/a", edits: [null, 5, { old_string: "a", new_string: "b", x: 1 }] },
    ],
    ["TodoWrite", { todos: [{ content: "marker-todo", status: "card deny" }, null] }],
    ["Weird\u202eTool", { __proto__: "marker-proto", constructor: 1 }],
    ["Write", { file_path: "/x", content: 0 }],
    ["Write", { file_path: "/a/b.constructor", content: "x" }],
    ["AskUserQuestion", { questions: [null] }],
    ["AskUserQuestion", { questions: [{ question: "__proto__", options: [{ label: "a" }] }] }],
    ["AskUserQuestion", { questions: [{ question: "q", options: [{ label: { toString: 1 } }] }] }],
    ["ExitPlanMode", { plan: "> ".repeat(1_500) }],
    ["ExitPlanMode", { plan: 5 }],
  ] as const;
  const card = setup.page.getByRole("region", { name: "The agent needs you" });
  for (const [name, input] of shapes) {
    await setup.run(`tool:${name}:${JSON.stringify(input)}`);
    await card.getByRole("button", { name: "Deny…" }).click();
    await card.getByRole("button", { name: "Deny", exact: true }).click();
    await done(setup.page);
    await card.waitFor({ state: "detached" });
  }
  expect(browser.problems.splice(0)).toEqual([]);
});

test("a second tap is none for the next card", async () => {
  await using setup = await watch();
  await setup.run("parallel:3");
  const card = setup.page.getByRole("region", { name: "The agent needs you" });
  await card.getByRole("group").nth(2).waitFor();
  await setup.page.locator("button.allow:enabled").first().waitFor();
  // At once the next card is where this one was.
  await setup.page.evaluate(`{
    const first = document.querySelector("button.allow");
    const { x, y } = first.getBoundingClientRect();
    const tap = () => document.elementFromPoint(x + 5, y + 5)?.closest("button")?.click();
    tap();
    globalThis.taps = setInterval(tap, 5);
    setTimeout(() => clearInterval(taps), 300);
  }`);
  await card.getByRole("group").nth(2).waitFor({ state: "detached" });
  await setup.page.waitForTimeout(350);
  expect(await card.getByRole("group").count()).toBe(2);
});

test("the page may do nothing that its policy does not name", async () => {
  await using app = await testApp();
  const response = await fetch(app.url);
  expect(response.headers.get("content-security-policy")).toBe(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  );
  expect(response.headers.get("x-content-type-options")).toBe("nosniff");
  expect(response.headers.get("referrer-policy")).toBe("no-referrer");
  expect(response.headers.get("cache-control")).toBe("no-cache");
  const [, script = ""] = /src="([^"]+)"/.exec(await response.text()) ?? [];
  const loaded = await fetch(new URL(script, app.url), { headers: { "accept-encoding": "gzip" } });
  expect(loaded.headers.get("cache-control")).toBe("public, max-age=31536000, immutable");
  expect(loaded.headers.get("content-type")).toBe("text/javascript; charset=utf-8");
  // Compressed, it is small.
  expect(Bun.gzipSync(await loaded.arrayBuffer(), { level: 9 }).length).toBeLessThan(120_000);
  const plain = await fetch(new URL(script, app.url), {
    headers: { "accept-encoding": "identity" },
  });
  expect(plain.headers.get("content-encoding")).toBeNull();
  // The browser does hold it to that.
  const page = await browser.open(app.url);
  await page.evaluate(`{
    const injected = document.createElement("script");
    injected.textContent = "window.harm = 1";
    document.body.append(injected);
  }`);
  expect(await page.evaluate("window.harm")).toBeUndefined();
  expect(browser.problems.splice(0)).toMatchObject([
    expect.stringContaining("Content Security Policy"),
  ]);
});

const node = v.object({ html: v.string(), failureSummary: v.optional(v.string()) });
const found = v.object({
  violations: v.array(
    v.object({ id: v.string(), impact: v.nullish(v.string()), nodes: v.array(node) }),
  ),
});

/** Rules that people who see, hear or move otherwise depend on. */
async function barriers(page: Page): Promise<unknown[]> {
  // Evaluated by the debugger, which the page's policy does not bind.
  await page.evaluate(axe);
  const { violations } = v.parse(found, await page.evaluate("axe.run()"));
  return violations.filter(({ impact }) => impact === "serious" || impact === "critical");
}

test.each([
  [phone, "light"],
  [phone, "dark"],
  [desk, "light"],
  [desk, "dark"],
] as const)("no serious barrier on %o, %s", async (size, scheme) => {
  await using app = await testApp();
  const client = await app.client();
  const path = await app.directory("shop");
  const { id } = (await client.expect("project_state", "project_create", { data: { path } })).data;
  const page = await browser.open(app.url, { ...size, scheme });
  await page.getByText("shop", { exact: true }).waitFor();
  expect(await barriers(page)).toEqual([]);
  const prompt = [
    "thinking:hm",
    "say:# Title\\n\\n- one\\n\\n`code`",
    `bash:printf 'a\\nb'`,
    "retry:2",
    `tool:Edit:${JSON.stringify({ file_path: "/a.ts", old_string: "a\nb", new_string: "a\nc" })}`,
    "ask",
  ].join("\n");
  await client.ask("execute", { project_id: id, data: { prompt } });
  await page.getByText("shop", { exact: true }).first().click();
  const card = page.getByRole("region", { name: "The agent needs you" });
  await card.getByRole("button", { name: "Allow", exact: true }).waitFor();
  expect(await barriers(page)).toEqual([]);
  await card.getByRole("button", { name: "Allow", exact: true }).click();
  await card.getByLabel("Blue").waitFor();
  expect(await barriers(page)).toEqual([]);
  await page.getByLabel("More about this project").click();
  await page.getByRole("dialog").waitFor();
  expect(await barriers(page)).toEqual([]);
  browser.problems.splice(0);
});
