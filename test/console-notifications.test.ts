import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import type { Worker } from "playwright-core";
import { typedCode } from "../src/access/pairing-code.ts";
import { testApp } from "./support/app.ts";
import { Browser, phone } from "./support/browser.ts";
import { PushDevice } from "./support/push-device.ts";
import { Receiver } from "./support/receiver.ts";

setDefaultTimeout(60_000);

let browser: Browser;
beforeAll(async () => {
  browser = await Browser.start();
});
afterAll(async () => await browser[Symbol.asyncDispose]());

test("nobody is told of what is on the screen, and everybody of what is not", async () => {
  await using hook = new Receiver();
  await using app = await testApp({ PA_NOTIFY_WEBHOOK: hook.url.href });
  const client = await app.client();
  const id = await client.create(await app.directory("shop"));
  const page = await browser.open(new URL(`#/projects/${id}`, app.url), phone);
  await page.getByLabel("Prompt").fill("say:seen");
  await page.getByRole("button", { name: "Send" }).click();
  await page.getByText(/^Done/).waitFor();
  await page.getByLabel("All projects").click();
  await page.getByRole("heading", { name: "Projects" }).waitFor();
  // The order of its requests is that of its doing: once this is answered, it has left.
  await client.run(id, "error:not seen");
  const { body } = await hook.next();
  expect(JSON.parse(body.toString())).toMatchObject({ event: "failed", project_id: id });
  expect(hook.received).toHaveLength(1);
});

test("a notification opens the card that it is about", async () => {
  await using app = await testApp();
  const client = await app.client();
  const project_id = await client.create(await app.directory("shop"));
  await client.ask("execute", { project_id, data: { prompt: "ask" } });
  const { data } = await client.next("permission_request");
  const page = await browser.open(app.url, phone);
  await page.context().grantPermissions(["notifications"], { origin: app.url.origin });
  await page.evaluate("navigator.serviceWorker.ready.then(() => undefined)");
  const workers = () => page.context().serviceWorkers();
  while (workers().length === 0) await Bun.sleep(20);
  const worker = workers()[0] as Worker;
  const url = `/#/projects/${project_id}/${data.permission_id}`;
  const told = { event: "needs_input", project_id, title: "shop needs you", body: "It asks", url };
  // As the browser's push service would.
  await worker.evaluate(`{
    const push = new PushEvent("push", { data: ${JSON.stringify(JSON.stringify(told))} });
    self.dispatchEvent(push);
  }`);
  const all = "navigator.serviceWorker.ready.then((sw) => sw.getNotifications())";
  const shown = `${all}.then((told) => told.map(({ title, body, tag }) => ({ title, body, tag })))`;
  while ((await page.evaluate(`${shown}.then(({ length }) => length)`)) === 0) await Bun.sleep(20);
  expect(await page.evaluate(shown)).toEqual([
    { title: "shop needs you", body: "It asks", tag: project_id },
  ]);
  await worker.evaluate(`self.registration.getNotifications().then(([notification]) =>
    self.dispatchEvent(new NotificationEvent("notificationclick", { notification })))`);
  await page
    .getByRole("region", { name: "The agent needs you" })
    .getByText("Which colour?")
    .waitFor();
  expect(page.url()).toEndWith(url);
});

test("the page opens without a network, and says so", async () => {
  let app = await testApp();
  const port = app.url.port;
  const page = await browser.open(app.url, phone);
  await page.evaluate("navigator.serviceWorker.ready.then(() => undefined)");
  await page.reload();
  await page.getByRole("button", { name: /^Connected/ }).waitFor();
  await app[Symbol.asyncDispose]();
  await page.reload();
  await page.getByText(/Next try in/).waitFor();
  app = await testApp({ PA_SERVER_PORT: port });
  await page.getByRole("button", { name: /^Connected/ }).waitFor();
  await app[Symbol.asyncDispose]();
});

test("a paired device subscribes and unsubscribes with a tap", async () => {
  await using app = await testApp({
    PA_AUTH_MODE: "ssh",
    PA_NOTIFY_PUSH_SERVICES: "push.example",
  });
  const { code } = app.app.access.pairing.open({
    scope: "approve",
    confirm: async () => true,
    ended: () => undefined,
  });
  const page = await browser.open(app.url, phone);
  const context = page.context();
  await context.grantPermissions(["notifications"], { origin: app.url.origin });
  const { subscription } = new PushDevice(new URL("https://push.example/"));
  // No real push service can be reached: this is what the browser would give the page.
  await context.addInitScript(`{
    let current = null;
    PushManager.prototype.getSubscription = async () => current;
    PushManager.prototype.subscribe = async ({ applicationServerKey }) => {
      globalThis.subscribedFor = applicationServerKey;
      current = {
        toJSON: () => (${JSON.stringify(subscription)}),
        unsubscribe: async () => { current = null; return true; },
      };
      return current;
    };
  }`);
  await page.goto(new URL(`#pair=${typedCode(code)}`, app.url).href);
  await page.reload();
  await page.getByLabel("Code").fill(typedCode(code));
  await page.getByRole("button", { name: "Pair this device" }).click();
  await page.getByRole("button", { name: /^Connected/ }).click();
  await page.getByRole("button", { name: /^Notify this device/ }).click();
  await page.getByRole("button", { name: "Stop notifying this device" }).waitFor();
  const push = () => app.app.access.devices.list()[0]?.push;
  expect(push()).toEqual(subscription);
  expect(await page.evaluate("subscribedFor")).toMatch(/^[\w-]{87}$/);
  await page.getByRole("button", { name: "Stop notifying this device" }).click();
  await page.getByRole("button", { name: /^Notify this device/ }).waitFor();
  expect(push()).toBeUndefined();
});
