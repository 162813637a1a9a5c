import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chownSync, existsSync, mkdirSync, renameSync } from "node:fs";
import { join } from "node:path";
import { scratch, type TestApp, testApp } from "./support/app.ts";
import type { Client } from "./support/client.ts";

setDefaultTimeout(60_000);

/** Whoever else there is on this machine. */
const nobody = 65_534;

let stack: AsyncDisposableStack;
let home: string;
let path: string;
let app: TestApp;
let client: Client;
let id: string;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  home = await scratch(stack);
  path = join(home, "checkout");
  mkdirSync(path);
  await start();
});

afterEach(() => stack.disposeAsync());

async function start(): Promise<void> {
  app = stack.use(await testApp({}, { home }));
  client = await app.client();
}

/** Ends the server, changes what it has noted of the directory, and starts it again. */
async function restart(change: (noted: Record<string, unknown>) => unknown): Promise<void> {
  await app[Symbol.asyncDispose]();
  const file = join(app.dataDir, "projects", id, "metadata.json");
  const metadata = await Bun.file(file).json();
  await Bun.write(file, JSON.stringify({ ...metadata, directory: change(metadata.directory) }));
  await start();
}

/** Puts another directory in the place of the project's. */
function replace(owner = process.getuid?.() ?? 0): void {
  renameSync(path, `${path}-${crypto.randomUUID()}`);
  mkdirSync(path);
  chownSync(path, owner, owner);
}

async function expectRefusal(words: string): Promise<void> {
  const data = { prompt: `bash:touch ${join(path, "made")}` };
  const { data: said } = await client.expect("error", "execute", { project_id: id, data });
  expect(said).toMatchObject({ code: "INVALID_PATH", message: expect.stringContaining(words) });
  expect(existsSync(join(path, "made"))).toBe(false);
}

async function expectWork(): Promise<void> {
  // Where the agent is, not what the path leads to.
  expect(await client.run(id, "bash:touch made")).toMatchObject({ state: "IDLE" });
  expect(existsSync(join(path, "made"))).toBe(true);
}

const trust = () =>
  client.expect("project_state", "project_trust", { project_id: id, data: { trusted: true } });

describe("a directory of somebody else in a project's place", () => {
  const words = "belongs to another account now";

  test("is refused, also if nobody has worked there yet", async () => {
    id = await client.create(path);
    replace(nobody);
    await expectRefusal(words);
  });

  test("is refused after a restart, and in another boot", async () => {
    id = await client.create(path);
    replace(nobody);
    await restart((noted) => noted);
    await expectRefusal(words);
    await restart((noted) => ({ ...noted, boot_id: "another" }));
    await expectRefusal(words);
  });
});

describe("a directory that was made anew", () => {
  test("is worked in, not the one that was there before, as long as it is not trusted", async () => {
    id = await client.create(path);
    await expectWork();
    replace();
    await expectWork();
  });

  test("has to be trusted anew, also after a restart", async () => {
    id = await client.create(path, { trusted: true });
    const words = "is not the directory that was trusted; say again whether it is";
    replace();
    await expectRefusal(words);
    await restart((noted) => noted);
    await expectRefusal(words);
    await trust();
    await expectWork();
    replace();
    await expectRefusal(words);
    await client.expect("project_state", "project_trust", {
      project_id: id,
      data: { trusted: false },
    });
    await expectWork();
  });

  test("cannot be told from the one before in another boot, whose numbers differ anyway", async () => {
    id = await client.create(path, { trusted: true });
    replace();
    await restart((noted) => ({ ...noted, boot_id: "another" }));
    await expectWork();
    replace();
    await expectRefusal("is not the directory that was trusted");
  });

  test("is not known in data of before that was noted, and is from then on", async () => {
    id = await client.create(path, { trusted: true });
    replace();
    await restart(() => undefined);
    await expectWork();
    await restart((noted) => noted);
    replace();
    await expectRefusal("is not the directory that was trusted");
  });
});
