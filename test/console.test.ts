import {
  afterAll,
  afterEach,
  beforeAll,
  describe,
  expect,
  setDefaultTimeout,
  test,
} from "bun:test";
import type { Page } from "playwright-core";
import { typedCode } from "../src/access/pairing-code.ts";
import { fingerprint } from "../src/access/ssh-key.ts";
import type { Scope } from "../src/contract/messages.ts";
import { type TestApp, testApp } from "./support/app.ts";
import { Browser, desk, phone } from "./support/browser.ts";
import type { Client } from "./support/client.ts";
import { Wire } from "./support/wire.ts";

setDefaultTimeout(60_000);

let browser: Browser;
beforeAll(async () => {
  browser = await Browser.start();
});
afterAll(async () => await browser[Symbol.asyncDispose]());
afterEach(() => expect(browser.problems.splice(0)).toEqual([]));

const locked = { PA_AUTH_MODE: "ssh", PA_TLS_ENABLED: "true", PA_INSECURE: "false" };

/** A server with a project, which a client of the test's own made. */
async function withProject(settings: Readonly<Record<string, string>> = {}) {
  const app = await testApp(settings);
  const client = await app.client();
  const path = await app.directory("webshop");
  const data = { path, trusted: true };
  const project = await client.expect("project_state", "project_create", { data });
  const { id } = project.data;
  const url = new URL(`#/projects/${id}`, app.url);
  return { app, client, id, url, [Symbol.asyncDispose]: () => app[Symbol.asyncDispose]() };
}

async function say(page: Page, prompt: string): Promise<void> {
  await page.getByLabel("Prompt").fill(prompt);
  await page.getByRole("button", { name: /^(Send|Queue)$/ }).click();
}

/** Waits until a text is in the conversation. */
async function sees(page: Page, text: string | RegExp): Promise<void> {
  await page.getByRole("region", { name: "Conversation" }).getByText(text).first().waitFor();
}

function card(page: Page) {
  return page.getByRole("region", { name: "The agent needs you" });
}

describe("a new device", () => {
  test("is paired from what the QR code opens, comes back by its key, and is out when revoked", async () => {
    await using app = await testApp(locked);
    const candidates: unknown[] = [];
    const { code } = offer(app, candidates);
    const fp = encodeURIComponent(app.app.access.serverId);
    const page = await browser.open(new URL(`#pair=${typedCode(code)}&fp=${fp}`, app.url), phone);
    expect(page.url()).not.toContain("pair");
    await page.getByLabel("Name of this device").fill("My phone");
    await page.getByRole("button", { name: "Pair this device" }).click();
    await page.getByRole("button", { name: /^Connected/ }).waitFor();
    expect(candidates).toMatchObject([{ name: "My phone" }]);
    await page.reload();
    await page.getByRole("button", { name: /^Connected/ }).waitFor();
    await page.getByRole("button", { name: /^Connected/ }).click();
    await page.getByRole("dialog").getByText("do everything").waitFor();
    await page.getByRole("dialog").getByText(app.app.access.serverId).waitFor();
    const [record] = app.app.access.devices.list();
    await page
      .getByRole("dialog")
      .getByText(fingerprint(Buffer.from(record?.key ?? "", "base64")))
      .waitFor();
    const owner = await enter(app, "full");
    const { data } = await owner.expect("device_list_response", "device_list");
    const device_id = data.devices.find(({ name }) => name === "My phone")?.id ?? "";
    await owner.expect("device_revoked", "device_revoke", { data: { device_id } });
    await page.getByText("This device was revoked").waitFor();
    await page.reload();
    await page.getByText("not a device of the server yet").waitFor();
  });

  test("shows the digits that the terminal shows, and is told when the terminal says no", async () => {
    await using app = await testApp(locked);
    const answer = Promise.withResolvers<boolean>();
    const asked = Promise.withResolvers<string>();
    const { code } = app.app.access.pairing.open({
      scope: "full",
      confirm: async ({ digits }) => {
        asked.resolve(digits);
        return await answer.promise;
      },
      ended: () => undefined,
    });
    const page = await browser.open(app.url, phone);
    await page.getByLabel("Code").fill(typedCode(code).toLowerCase().replaceAll(/.{4}/g, "$& "));
    await page.getByRole("button", { name: "Pair this device" }).click();
    await page.getByText(await asked.promise, { exact: true }).waitFor();
    answer.resolve(false);
    await page.getByRole("alert").waitFor();
    await page.getByRole("button", { name: "Pair this device" }).waitFor();
  });

  test("sends nothing to a server whose key is not the one in the QR code", async () => {
    await using app = await testApp(locked);
    const candidates: unknown[] = [];
    const { code } = offer(app, candidates);
    const page = await browser.open(new URL(`#pair=${typedCode(code)}&fp=SHA256:other`, app.url));
    await page.getByRole("button", { name: "Pair this device" }).click();
    await page.getByText("not the one in the QR code").waitFor();
    expect(candidates).toEqual([]);
  });
});

describe("a project", () => {
  test("is made by browsing, and deleted after a question", async () => {
    await using app = await testApp();
    await app.directory("inner/shop");
    const page = await browser.open(app.url, phone);
    await page.getByRole("button", { name: "New", exact: true }).click();
    await page.getByRole("dialog").getByRole("button", { name: "work" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "inner" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "shop" }).click();
    await page.getByText("No directories in it").waitFor();
    await page.getByRole("button", { name: "Use this directory" }).click();
    await page.getByRole("heading", { name: "shop" }).waitFor();
    await page.getByRole("button", { name: "Trust it" }).click();
    await page.getByRole("button", { name: "Trust it" }).waitFor({ state: "detached" });
    await page.getByLabel("More about this project").click();
    await page.getByRole("button", { name: "Delete this project…" }).click();
    await page.getByRole("button", { name: "Delete the history" }).click();
    await page.getByText("Begin with New").waitFor();
  });

  test("says why a directory cannot be one", async () => {
    await using app = await testApp();
    const page = await browser.open(app.url);
    await page.getByRole("button", { name: "New", exact: true }).click();
    await page.getByLabel("Directory on the server").fill("/nowhere/at/all");
    await page.getByRole("button", { name: "Use this directory" }).click();
    await page.getByRole("alert").waitFor();
    expect(await page.getByRole("alert").textContent()).toContain("Cannot");
  });
});

describe.each([
  ["a phone, light", { ...phone, scheme: "light" }],
  ["a phone, dark", { ...phone, scheme: "dark" }],
  ["a desk, light", { ...desk, scheme: "light" }],
  ["a desk, dark", { ...desk, scheme: "dark" }],
] as const)("on %s", (_, view) => {
  test("a prompt streams, and is whole after a reload", async () => {
    await using setup = await withProject();
    const page = await browser.open(setup.url, view);
    await say(page, "stream:30:10");
    await sees(page, /w0 w1 w2/);
    await sees(page, /w28 w29/);
    await sees(page, /Done/);
    await page.reload();
    await sees(page, /w0 w1 .* w29/);
    await sees(page, "stream:30:10");
  });

  test("approvals, questions and plans are answered", async () => {
    await using setup = await withProject();
    const page = await browser.open(setup.url, view);
    await say(page, `tool:Bash:${JSON.stringify({ command: "make all", description: "Builds" })}`);
    await card(page).getByText("make all", { exact: true }).waitFor();
    await card(page).getByText("In the agent's words").waitFor();
    await card(page).getByRole("button", { name: "Allow", exact: true }).click();
    await sees(page, /done: Bash ran with .*make all/);

    await say(page, `tool:Bash:${JSON.stringify({ command: "rm -rf /" })}`);
    await card(page).getByRole("button", { name: "Deny…" }).click();
    await card(page).getByLabel("Why not").fill("never do that");
    await card(page).getByRole("button", { name: "Deny", exact: true }).click();
    await sees(page, /done: never do that/);

    await say(page, "ask");
    await card(page).getByLabel("Blue").check();
    await card(page).getByRole("button", { name: "Answer" }).click();
    await sees(page, /done: .*Blue/);

    await say(page, "plan:# Steps\n");
    await card(page).getByRole("heading", { name: "Steps" }).waitFor();
    await card(page).getByRole("button", { name: "Approve the plan" }).click();
    await card(page).waitFor({ state: "detached" });
    await sees(page, /Done/);
  });

  test("a run is stopped", async () => {
    await using setup = await withProject();
    const page = await browser.open(setup.url, view);
    await say(page, "say:begun\nhang");
    await sees(page, "begun");
    await page.getByRole("button", { name: "Stop" }).click();
    await page.getByRole("button", { name: "Send" }).waitFor();
    await page.getByRole("button", { name: "Stop" }).waitFor({ state: "detached" });
  });
});

test("a long conversation is read page by page, and what is read stays where it is", async () => {
  await using setup = await withProject();
  await setup.client.run(setup.id, "say:the very first");
  await setup.client.run(setup.id, "flood:700:40");
  const page = await browser.open(setup.url, phone);
  const box = page.getByRole("region", { name: "Conversation" });
  await sees(page, /^Done/);
  let steps = 0;
  while ((await box.getByText("The beginning").count()) === 0) {
    // The upper edge is where more is put: what was there must not move by that.
    const moved = await box.evaluate(async (element) => {
      element.scrollTop = 300;
      const item = [...element.querySelectorAll(".item")].find(
        (one) => one.getBoundingClientRect().bottom > element.getBoundingClientRect().top,
      );
      const before = item?.getBoundingClientRect().top ?? Number.NaN;
      await new Promise((resolve) => setTimeout(resolve, 100));
      return (item?.getBoundingClientRect().top ?? Number.NaN) - before;
    });
    expect(Math.abs(moved)).toBeLessThan(2);
    expect(await page.locator(".item").count()).toBeLessThanOrEqual(120);
    steps += 1;
  }
  expect(steps).toBeGreaterThan(10);
  await sees(page, "the very first");
  await page.getByRole("button", { name: "Go to the end" }).click();
  await sees(page, /^Done/);
  await say(page, "say:and the last");
  await sees(page, /^and the last/);
});

test("what one browser does, the other sees", async () => {
  await using setup = await withProject();
  const one = await browser.open(setup.url, phone);
  const two = await browser.open(setup.url, desk);
  await say(one, `tool:Bash:${JSON.stringify({ command: "ls" })}`);
  await card(two).getByRole("button", { name: "Allow", exact: true }).click();
  await card(one).waitFor({ state: "detached" });
  await sees(one, /done: Bash ran/);
  await sees(two, /done: Bash ran/);
  await say(two, "say:from the desk");
  await sees(one, "from the desk");
});

test("a network that is lost in the middle costs nothing, and is shown", async () => {
  await using wire = await Wire.lay();
  const allowed = { PA_SERVER_ALLOWED_HOSTS: `127.0.0.1:${wire.port}` };
  await using setup = await withProject(allowed);
  wire.target = Number(setup.app.url.port);
  const page = await browser.open(`http://127.0.0.1:${wire.port}/#/projects/${setup.id}`, phone);
  await say(page, "stream:40:20\nsay:and then this");
  await sees(page, /w3 /);
  wire.cut();
  await page
    .getByRole("main")
    .getByText(/Next try in/)
    .waitFor();
  await say(page, "say:written without a connection");
  await sees(page, /on its way/);
  wire.mend();
  // As a browser says when there is a network again.
  await page.evaluate('dispatchEvent(new Event("online"))');
  await sees(page, /w0 w1 .* w39/);
  await sees(page, "and then this");
  await sees(page, /^written without a connection/);
  await page.getByText(/on its way/).waitFor({ state: "detached" });
  const { data } = await setup.client.expect("messages_response", "get_messages", {
    project_id: setup.id,
    data: {},
  });
  const prompts = data.messages.filter(({ direction }) => direction === "client");
  expect(prompts).toHaveLength(2);
  expect(await page.getByText(/w0 w1 .* w39/).count()).toBe(1);
});

test("a prompt that waits for a connection outlives a reload", async () => {
  await using wire = await Wire.lay();
  const allowed = { PA_SERVER_ALLOWED_HOSTS: `127.0.0.1:${wire.port}` };
  await using setup = await withProject(allowed);
  wire.target = Number(setup.app.url.port);
  const page = await browser.open(`http://127.0.0.1:${wire.port}/#/projects/${setup.id}`, phone);
  await say(page, "say:first");
  await sees(page, /Done/);
  wire.cut();
  await page
    .getByRole("main")
    .getByText(/Next try in/)
    .waitFor();
  await say(page, "say:kept");
  await sees(page, /on its way/);
  wire.mend();
  await page.reload();
  await sees(page, /^kept/);
});

test("a prompt that is too large is given back, and holds up none behind it", async () => {
  await using setup = await withProject({ PA_MESSAGE_SIZE_LIMIT: "20000" });
  const page = await browser.open(setup.url, phone);
  await say(page, `say:${"large ".repeat(5_000)}`);
  await page.getByRole("alert").getByText("larger than the server takes").waitFor();
  expect(await page.getByLabel("Prompt").inputValue()).toContain("large large");
  await say(page, "say:small");
  await sees(page, /^small/);
  await page.reload();
  await sees(page, /^small/);
  await page.getByText("on its way").waitFor({ state: "detached" });
});

test("prompts that wait are shown, and can be taken back", async () => {
  await using setup = await withProject();
  const page = await browser.open(setup.url, phone);
  await say(page, "say:begun\nhang");
  await sees(page, "begun");
  await say(page, "say:one");
  await say(page, "say:two");
  await page.getByText("waits its turn").nth(1).waitFor();
  await page.getByRole("button", { name: "Take it back" }).first().click();
  await page.getByRole("button", { name: "Take it back" }).nth(1).waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Stop" }).click();
  await sees(page, /^A queued prompt was taken back/);
  await page.getByText("the next prompt that you send goes first").waitFor();
  await page.reload();
  await page.getByText("the next prompt that you send goes first").waitFor();
});

test("what is being written outlives a look elsewhere and a reload", async () => {
  await using setup = await withProject();
  const page = await browser.open(setup.url, phone);
  await page.getByLabel("Prompt").fill("half a thought");
  await page.getByLabel("All projects").click();
  await page.getByText("webshop", { exact: true }).click();
  const kept = async () => {
    while ((await page.getByLabel("Prompt").inputValue()) !== "half a thought") await Bun.sleep(20);
  };
  await kept();
  await page.reload();
  await kept();
});

test("two pages of one browser lose and double nothing of what waits", async () => {
  await using wire = await Wire.lay();
  const allowed = { PA_SERVER_ALLOWED_HOSTS: `127.0.0.1:${wire.port}` };
  await using setup = await withProject(allowed);
  wire.target = Number(setup.app.url.port);
  const url = `http://127.0.0.1:${wire.port}/#/projects/${setup.id}`;
  const one = await browser.open(url, phone);
  await one.getByText("Nothing was said here yet").waitFor();
  const two = await one.context().newPage();
  await two.goto(url);
  await two.getByText("Nothing was said here yet").waitFor();
  wire.cut();
  for (const page of [one, two])
    await page
      .getByRole("main")
      .getByText(/Next try in/)
      .waitFor();
  await say(one, "say:from one");
  await say(two, "say:from two");
  await sees(two, /on its way/);
  wire.mend();
  await Promise.all([one.reload(), two.reload()]);
  for (const page of [one, two]) {
    await sees(page, /^from one/);
    await sees(page, /^from two/);
  }
  const { data } = await setup.client.expect("messages_response", "get_messages", {
    project_id: setup.id,
    data: {},
  });
  expect(data.messages.filter(({ direction }) => direction === "client")).toHaveLength(2);
});

test("what was asked before a loss and answered meanwhile is not asked again", async () => {
  await using wire = await Wire.lay();
  const allowed = { PA_SERVER_ALLOWED_HOSTS: `127.0.0.1:${wire.port}` };
  await using setup = await withProject(allowed);
  wire.target = Number(setup.app.url.port);
  const { client, id: project_id } = setup;
  const page = await browser.open(`http://127.0.0.1:${wire.port}/#/projects/${project_id}`, phone);
  await page.getByText("Nothing was said here yet").waitFor();
  wire.cut();
  await page
    .getByRole("main")
    .getByText(/Next try in/)
    .waitFor();
  const prompt = `tool:Bash:${JSON.stringify({ command: "one" })}\ntool:Bash:${JSON.stringify({ command: "two" })}`;
  await client.ask("execute", { project_id, data: { prompt } });
  const { permission_id } = (await client.next("permission_request")).data;
  const data = { permission_id, decision: "allow" };
  await client.ask("permission_response", { project_id, data });
  await client.next("permission_request");
  wire.mend();
  await page.evaluate('dispatchEvent(new Event("online"))');
  await card(page).getByText("two", { exact: true }).waitFor();
  expect(await card(page).getByRole("group").count()).toBe(1);
});

test("a project that is deleted while it is open leads back to the others", async () => {
  await using setup = await withProject();
  const page = await browser.open(setup.url, phone);
  await page.getByText("Nothing was said here yet").waitFor();
  await setup.client.ask("project_delete", { project_id: setup.id });
  await page.getByText("Begin with New").waitFor();
  // And so does an address of one that is gone.
  await page.goto("about:blank");
  await page.goto(setup.url.href);
  await page.getByText("Begin with New").waitFor();
});

test("a device of scope approve may answer, and is offered nothing else", async () => {
  await using app = await testApp(locked);
  const owner = await enter(app, "full");
  const path = await app.directory("shop");
  const made = await owner.expect("project_state", "project_create", { data: { path } });
  const { id } = made.data;
  const { code } = offer(app, [], "approve");
  const page = await browser.open(new URL(`#pair=${typedCode(code)}`, app.url), phone);
  await page.getByRole("button", { name: "Pair this device" }).click();
  await page.getByText("shop", { exact: true }).click();
  await page.getByText("This device may answer what the agent asks").waitFor();
  expect(await page.getByLabel("Prompt").count()).toBe(0);
  const prompt = `tool:Bash:${JSON.stringify({ command: "ls" })}`;
  await owner.ask("execute", { project_id: id, data: { prompt } });
  await card(page).getByRole("button", { name: "Allow", exact: true }).waitFor();
  expect(await card(page).getByRole("button", { name: "Edit" }).count()).toBe(0);
  await card(page).getByRole("button", { name: "Allow", exact: true }).click();
  await sees(page, /done: Bash ran/);
});

/** Opens the door for one device. */
function offer(app: TestApp, candidates: unknown[], scope: Scope = "full") {
  return app.app.access.pairing.open({
    scope,
    confirm: async (candidate) => {
      candidates.push(candidate);
      return true;
    },
    ended: () => undefined,
  });
}

/** A client that is in by a token of its own. */
async function enter(app: TestApp, scope: Scope): Promise<Client> {
  const { devices, tokens } = app.app.access;
  const { id } = await devices.add({ name: "owner", scope, key: null, kind: "token" });
  const { token } = await tokens.issue(id, null);
  const client = await app.client();
  await client.expect("auth_success", "auth_token", { data: { token } });
  return client;
}
