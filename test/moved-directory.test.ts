import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { chownSync, existsSync, mkdirSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import type { Finding } from "../src/doctor/finding.ts";
import { scratch } from "./support/app.ts";
import { AgentLog } from "./support/agent-log.ts";
import { Client } from "./support/client.ts";
import { ServerProcess } from "./support/server-process.ts";

setDefaultTimeout(60_000);

const main = join(import.meta.dir, "..", "src", "main.ts");

let stack: AsyncDisposableStack;
let home: string;
let path: string;
let server: ServerProcess;
let client: Client;
let id: string;

/** A project in which an agent has worked and waits for more. */
beforeEach(async () => {
  stack = new AsyncDisposableStack();
  home = await scratch(stack);
  path = join(home, "checkout");
  mkdirSync(path);
  server = stack.use(await ServerProcess.start({ home }));
  client = stack.use(await Client.connect(server.url));
  client.patienceMs = 30_000;
  id = await client.create(path);
  await client.run(id, "bash:touch before");
  expect(existsSync(join(path, "before"))).toBe(true);
});

afterEach(() => stack.disposeAsync());

const refusal = async () =>
  (await client.expect("error", "execute", { project_id: id, data: { prompt: "say:no" } })).data;

/** Waits until the server says so; it looks every two seconds. */
async function expectAvailable(expected: boolean): Promise<void> {
  for (;;) {
    const { data } = await client.expect("project_list_response", "project_list");
    if (data.projects[0]?.available === expected) return;
    await Bun.sleep(200);
  }
}

async function doctor(): Promise<Finding[]> {
  const child = Bun.spawn([process.execPath, main, "doctor", "--json"], {
    env: {
      PATH: process.env["PATH"],
      HOME: home,
      PA_DATA_DIR: join(home, "data"),
      PA_SERVER_PORT: "0",
    },
    stdout: "pipe",
  });
  const { findings }: { findings: Finding[] } = JSON.parse(await child.stdout.text());
  return findings.filter(({ what }) => what === `project ${id.slice(0, 8)}`);
}

test("a directory that is gone refuses prompts, everybody is told, and its history stays", async () => {
  renameSync(path, `${path}-moved`);
  expect(await refusal()).toMatchObject({
    code: "INVALID_PATH",
    message: `Cannot use "${path}": it does not exist`,
  });
  // Nobody has asked: it is told to all.
  const told = await client.next("project_updated", ({ data }) => !data.available);
  expect(told.data).toMatchObject({ id, state: "IDLE", error: null });
  expect(await doctor()).toMatchObject([
    { status: "warn", text: `its directory ${path} is not there` },
  ]);
  const page = await client.expect("messages_response", "get_messages", { project_id: id });
  expect(page.data.messages.length).toBeGreaterThan(3);
  renameSync(`${path}-moved`, path);
  await expectAvailable(true);
  expect(await client.run(id, "say:back")).toMatchObject({ state: "IDLE" });
  expect(await doctor()).toEqual([]);
});

test("a directory that was made anew is worked in, and not the one that was there before", async () => {
  renameSync(path, `${path}-old`);
  mkdirSync(path);
  expect(await client.run(id, "bash:touch after")).toMatchObject({ state: "IDLE" });
  expect(existsSync(join(path, "after"))).toBe(true);
  expect(existsSync(join(`${path}-old`, "after"))).toBe(false);
  await expectAvailable(true);
  expect(new AgentLog(home).starts()).toHaveLength(2);
});

test("a link in its place is refused with words, and nothing runs where it leads", async () => {
  const elsewhere = join(home, "elsewhere");
  mkdirSync(elsewhere);
  renameSync(path, `${path}-old`);
  symlinkSync(elsewhere, path);
  expect(await refusal()).toMatchObject({
    code: "INVALID_PATH",
    message: `Cannot run the prompt: "${path}" is, or lies behind, a symbolic link now`,
  });
  await expectAvailable(false);
  expect(await doctor()).toMatchObject([
    { status: "warn", text: `${path} is, or lies behind, a symbolic link now` },
  ]);
  rmSync(path);
  renameSync(`${path}-old`, path);
  expect(await client.run(id, "bash:touch after")).toMatchObject({ state: "IDLE" });
  expect(existsSync(join(path, "after"))).toBe(true);
});

test("a link in place of a folder above it is refused as well", async () => {
  const above = join(home, "above");
  mkdirSync(join(above, "inner"), { recursive: true });
  const inner = await client.create(join(above, "inner"));
  renameSync(above, `${above}-old`);
  symlinkSync(`${above}-old`, above);
  const prompt = { project_id: inner, data: { prompt: "say:no" } };
  const { data } = await client.expect("error", "execute", prompt);
  expect(data).toMatchObject({ code: "INVALID_PATH", message: expect.stringContaining("link") });
});

test.if(process.getuid?.() === 0)("one that somebody else has put there is refused", async () => {
  renameSync(path, `${path}-old`);
  mkdirSync(path);
  chownSync(path, 65_534, 65_534);
  expect(await refusal()).toMatchObject({
    code: "INVALID_PATH",
    message: `Cannot run the prompt: "${path}" belongs to another account now`,
  });
});
