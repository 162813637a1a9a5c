/** Makes the README's pictures of the console: `bun test/pictures.ts`, with Debian's chromium. */
import { join } from "node:path";
import { testApp } from "./support/app.ts";
import { Browser, desk, phone } from "./support/browser.ts";

const folder = join(import.meta.dir, "../.github/pictures");
const edit = {
  file_path: "/home/me/webshop/src/cart.ts",
  old_string: "  return items.map((item) => item.price);\n",
  new_string:
    "  const prices = items.map((item) => item.price * item.count);\n  return sum(prices);\n",
};
const command = "bun test src/cart.test.ts && git diff --stat";

/** What the agent does: said, thought, run, edited, and then asked. */
const work = [
  "thinking:The total ignores how many of an item there are.",
  "say:The total ignores `count`: it adds up one of each. I will **multiply first**, and then run the tests.",
  "bash:printf '12 pass\\n0 fail\\n'",
  `tool:Edit:${JSON.stringify(edit)}`,
  `tool:Bash:${JSON.stringify({ command, description: "Run the cart's tests" })}`,
].join("\n");

await using app = await testApp();
await using browser = await Browser.start();
const client = await app.client();
for (const name of ["infra", "blog", "webshop"]) await client.create(await app.directory(name));
const { data } = await client.expect("project_list_response", "project_list");
const project_id = data.projects.at(-1)?.id ?? "";
await client.expect("project_state", "project_trust", { project_id, data: { trusted: true } });
const prompt = "Why is the total in the cart wrong? Mend it, and show me the tests.";
await client.run(data.projects[1]?.id ?? "", "say:Published.");
await client.ask("execute", { project_id, data: { prompt: `${prompt}\n${work}` } });
const { permission_id } = (await client.next("permission_request")).data;
const allow = { permission_id, decision: "allow" };
await client.ask("permission_response", { project_id, data: allow });
await client.next("permission_request");

const url = new URL(`#/projects/${project_id}`, app.url);
for (const [name, view] of Object.entries({
  "phone-light": { ...phone, scheme: "light" },
  "phone-dark": { ...phone, scheme: "dark" },
  "desk-dark": { ...desk, scheme: "dark" },
} as const)) {
  const page = await browser.open(url, view);
  await page.locator("button.allow:enabled").waitFor();
  await page.getByText(/^\d+ ms$/).waitFor({ state: "attached" });
  // What the fake agent is told to do is of no interest to anybody.
  await page.evaluate(
    `document.querySelector(".prompt .body").textContent = ${JSON.stringify(prompt)}`,
  );
  await page.screenshot({ path: join(folder, `${name}.png`) });
}
