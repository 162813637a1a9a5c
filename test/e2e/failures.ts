/** What goes wrong outside the server is said in words that help, and ends nothing else. */
import { expect, test } from "bun:test";
import { Lab, run } from "./lab.ts";
import { blocks, errors } from "./transcript.ts";

test("an error of the API fails the run, and the next prompt works", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const { id } = await lab.project(client);
  const failed = await run(client, id, { prompt: "error:400" });
  expect(failed).toMatchObject({ state: "ERROR", error: { code: "EXECUTION_FAILED" } });
  expect(failed.error?.message).toContain("scripted 400");
  expect(errors(client.events(id))).toMatchObject([failed.error]);
  const state = await run(client, id, { prompt: "say:Here again" });
  expect(state).toMatchObject({ state: "IDLE", error: null });
  expect(blocks(client.received).at(-1)?.text).toBe("Here again");
});

test("without a login the run fails and says how to log in", async () => {
  await using lab = await Lab.start({ ANTHROPIC_API_KEY: "" });
  const client = await lab.client();
  const { id } = await lab.project(client);
  const failed = await run(client, id, { prompt: "say:Hello" });
  expect(failed).toMatchObject({ state: "ERROR", error: { code: "EXECUTION_FAILED" } });
  expect(failed.error?.message).toMatch(/not logged in; run `claude` .* and log in/);
  expect(errors(client.events(id))).toMatchObject([{ details: { reason: "not_logged_in" } }]);
  expect(lab.conversation).toEqual([]);
  const health = await client.expect("health_status", "health");
  expect(health.data).toMatchObject({ status: "degraded", claude: { authenticated: false } });
});
