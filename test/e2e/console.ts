/** The web console in a browser, with the real CLI behind it. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Browser, phone } from "../support/browser.ts";
import { Lab } from "./lab.ts";

test("somebody with a phone has the real CLI write, is asked, and comes back", async () => {
  await using lab = await Lab.start();
  await using browser = await Browser.start();
  const client = await lab.client();
  const { id, path } = await lab.project(client);
  const page = await browser.open(new URL(`#/projects/${id}`, lab.server.url), phone);
  page.setDefaultTimeout(30_000);
  const say = async (prompt: string) => {
    await page.getByLabel("Prompt").fill(prompt);
    await page.getByRole("button", { name: "Send" }).click();
  };
  const conversation = page.getByRole("region", { name: "Conversation" });
  const card = page.getByRole("region", { name: "The agent needs you" });

  await say("stream:60");
  await conversation.getByText(/w59/).waitFor();
  await conversation.getByText(/^Done/).waitFor();

  const file = join(path, "note.txt");
  await say(`write:${file}`);
  await card.getByText(file, { exact: true }).waitFor();
  await card.getByText("written by the fake model").waitFor();
  await card.getByRole("button", { name: "Allow", exact: true }).click();
  await conversation.getByText(/^Done/).nth(1).waitFor();
  expect(readFileSync(file, "utf8")).toContain("written by the fake model");

  await say("ask");
  await card.getByRole("radio").first().check();
  await card.getByRole("button", { name: "Answer" }).click();
  await conversation.getByText(/^Done/).nth(2).waitFor();

  // What the CLI says of its commands is offered.
  await page.getByLabel("Prompt").fill("/com");
  await page.getByRole("button", { name: "/compact" }).waitFor();

  await page.reload();
  await conversation.getByText(/^Done/).nth(2).waitFor();
  await conversation.getByText(/w59/).waitFor();
  expect(browser.problems).toEqual([]);
});
