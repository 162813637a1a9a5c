import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Finding } from "../src/doctor/finding.ts";
import { scratch } from "./support/app.ts";
import { AgentLog } from "./support/agent-log.ts";
import { until } from "./support/claude-lab.ts";
import { Client } from "./support/client.ts";
import { ServerProcess, spawnServer } from "./support/server-process.ts";
import {
  asOrdinary,
  canMount,
  readOnly,
  tightFiles,
  tightFileSystem,
} from "./support/tight-disk.ts";

setDefaultTimeout(90_000);

const main = join(import.meta.dir, "..", "src", "main.ts");

let stack: AsyncDisposableStack;
let home: string;
let data: string;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  home = await scratch(stack);
  data = join(home, "data");
});

afterEach(() => stack.disposeAsync());

/** What a server that does not start says, and its exit code. */
async function refusal(settings: Readonly<Record<string, string>> = {}, by = asOrdinary) {
  const child = spawnServer({ home, settings, by });
  const [code, said] = await Promise.all([child.exited, child.stderr.text()]);
  return { code, said: said.trimEnd().split("\n") };
}

async function doctor(by = asOrdinary): Promise<Finding[]> {
  const child = Bun.spawn([...by, process.execPath, main, "doctor", "--json"], {
    env: { PATH: process.env["PATH"], HOME: home, PA_DATA_DIR: data, PA_SERVER_PORT: "0" },
    stdout: "pipe",
  });
  const { findings }: { findings: Finding[] } = JSON.parse(await child.stdout.text());
  return findings.filter(({ status }) => status === "fail");
}

/** A home in which a server has run, with a project and some history. */
async function live(settings: Readonly<Record<string, string>> = {}): Promise<string> {
  const path = join(home, "work");
  await mkdir(path);
  await using server = await ServerProcess.start({ home, settings });
  await using client = await Client.connect(server.url);
  const id = await client.create(path);
  await client.run(id, "say:hello");
  return id;
}

const sentence = (cause: string, remedy: string) => [
  expect.stringMatching(
    new RegExp(`^Cannot use the data directory "${data}": ${cause}; ${remedy}, or name another`),
  ),
];

describe("a server refuses with one sentence, and exits with 1, when its data directory", () => {
  test("would lie below a file", async () => {
    writeFileSync(join(home, "file"), "");
    data = join(home, "file", "data");
    const said = sentence("a part of its path is not a directory", "move away what is in the way");
    expect(await refusal({ PA_DATA_DIR: data })).toEqual({ code: 1, said });
    expect(await doctor()).toContainEqual(
      expect.objectContaining({ what: "data", text: expect.stringContaining("not a directory") }),
    );
  });

  test("may not be made where it is to be", async () => {
    const parent = join(home, "closed");
    mkdirSync(parent, { mode: 0o500 });
    data = join(parent, "data");
    const said = sentence("this account may not use it", "give it to this account with chown");
    expect(await refusal({ PA_DATA_DIR: data })).toEqual({ code: 1, said });
    expect(await doctor()).toContainEqual(
      expect.objectContaining({ what: "data", text: expect.stringContaining("may not use it") }),
    );
  });

  test("holds a folder that it may not use", async () => {
    await live();
    const trash = join(data, "trash");
    chmodSync(trash, 0);
    stack.defer(() => chmodSync(trash, 0o700));
    const said = sentence(
      `this account may not use it \\(${trash}\\)`,
      "give it to this account with chown",
    );
    expect(await refusal()).toEqual({ code: 1, said });
    expect(await doctor()).toContainEqual(
      expect.objectContaining({ what: "writing", text: `this account may not use it: ${trash}` }),
    );
  });

  test.if(canMount())("is on a file system that can only be read", async () => {
    await live();
    stack.use(readOnly(data));
    const said = sentence("the disk can only be read", "make its file system writable");
    expect(await refusal()).toEqual({ code: 1, said });
    expect(await doctor()).toContainEqual(
      expect.objectContaining({
        what: "writing",
        text: expect.stringContaining("the disk can only be read"),
        remedy: expect.stringContaining("writable"),
      }),
    );
  });

  test.if(canMount())("is on a full disk, and has nothing in it yet", async () => {
    const disk = stack.use(tightFileSystem(data));
    disk.fill();
    expect(await refusal()).toEqual({ code: 1, said: sentence("the disk is full", "make room") });
  });
});

describe("a project that the server cannot read is left out, and said so,", () => {
  test.each([
    ["when its folder is closed", "", 0],
    ["when its folder cannot be listed", "", 0o100],
    ["when its folder cannot be entered", "", 0o400],
    ["when its logs are closed", "logs", 0],
    ["when its metadata is closed", "metadata.json", 0],
  ])("%s", async (_, part, mode) => {
    const id = await live();
    const closed = join(data, "projects", id, part);
    const { mode: before } = statSync(closed);
    chmodSync(closed, mode);
    {
      await using server = await ServerProcess.start({ home, by: asOrdinary });
      await using client = await Client.connect(server.url);
      const { data: list } = await client.expect("project_list_response", "project_list");
      expect(list.projects).toEqual([]);
      const { data: health } = await client.expect("health_status", "health");
      expect(health.problems).toContainEqual(
        expect.stringContaining(`A project was not loaded: Project ${id}: `),
      );
      expect(await doctor()).toContainEqual(
        expect.objectContaining({
          text: expect.stringMatching(/cannot be read|may not use it/),
          remedy: expect.stringContaining("chmod u+rwX"),
        }),
      );
      // The others are none the worse.
      mkdirSync(join(home, "other"));
      const other = await client.create(join(home, "other"));
      expect(await client.run(other, "say:hello")).toMatchObject({ state: "IDLE" });
    }
    chmodSync(closed, before);
    await using server = await ServerProcess.start({ home, by: asOrdinary });
    await using client = await Client.connect(server.url);
    const page = await client.expect("messages_response", "get_messages", { project_id: id });
    expect(page.data.messages.length).toBeGreaterThan(3);
  });
});

describe.if(canMount())("on a full disk", () => {
  test("a server starts, serves what there is, refuses prompts, and goes on when there is room", async () => {
    const disk = stack.use(tightFileSystem(data));
    const settings = { PA_LIMITS_MIN_FREE_DISK: "64KB" };
    const id = await live(settings);
    disk.fill();
    expect(await doctor()).toContainEqual(
      expect.objectContaining({ what: "disk", remedy: "Make room" }),
    );
    const server = stack.use(await ServerProcess.start({ home, settings }));
    const client = stack.use(await Client.connect(server.url));
    const page = await client.expect("messages_response", "get_messages", { project_id: id });
    expect(page.data.messages.length).toBeGreaterThan(3);
    expect((await client.expect("health_status", "health")).data.status).toBe("degraded");
    const prompt = { project_id: id, data: { prompt: "say:more" } };
    const refused = await client.expect("error", "execute", prompt);
    expect(refused.data).toMatchObject({ code: "RESOURCE_LIMIT", details: { resource: "disk" } });
    disk.relieve(server.pid);
    // What is free is cached for a second.
    await until(async () => (await client.ask("execute", prompt)).type === "project_state");
    expect(await client.settled(id)).toMatchObject({ state: "IDLE", error: null });
    expect(server.log).not.toContain("nobody caught this error");
    expect(await server.stop()).toBe(0);
  });

  test("the server's own log in a file costs nobody an answer", async () => {
    const disk = stack.use(tightFileSystem(data));
    const settings = { PA_LOG_LEVEL: "debug", PA_LOG_OUTPUT: join(data, "server.log") };
    const child = spawnServer({ home, settings });
    stack.defer(async () => {
      child.kill();
      await child.exited;
    });
    const log = join(data, "server.log");
    const url = () => /"url":"(http[^"]+)"/.exec(existsSync(log) ? readFileSync(log, "utf8") : "");
    await until(() => url() !== null);
    disk.fill();
    const address = new URL(url()?.[1] ?? "");
    for (let visits = 0; visits < 50; visits += 1) {
      await using client = await Client.connect(address);
      expect((await client.ask("health")).type).toBe("health_status");
    }
    child.kill();
    expect(await child.exited).toBe(0);
    expect(await child.stderr.text()).toContain("Cannot write to the log");
    expect(readdirSync(data)).not.toContain("server.lock");
  });
});

test("a run that a crash has cut short is settled as soon as that can be written", async () => {
  await mkdir(join(home, "work"));
  const first = stack.use(await ServerProcess.start({ home }));
  const before = stack.use(await Client.connect(first.url));
  const id = await before.create(join(home, "work"));
  const prompt = { project_id: id, data: { prompt: "hang" } };
  await before.expect("project_state", "execute", prompt);
  await until(() => new AgentLog(home).prompts().length > 0);
  await first.crash();
  const disk = tightFiles(1);
  const server = stack.use(await ServerProcess.start({ home, by: disk.by }));
  const client = stack.use(await Client.connect(server.url));
  await client.expect("project_joined", "project_join", { project_id: id });
  for (const type of ["execute", "agent_kill", "agent_new_session"] as const) {
    const request = type === "execute" ? prompt : { project_id: id };
    const refused = await client.expect("error", type, request);
    expect(refused.data).toMatchObject({ code: "STORAGE_ERROR" });
  }
  disk.relieve(server.pid);
  const { data: settled } = await client.next(
    "project_state",
    ({ project_id, seq }) => project_id === id && seq !== undefined,
  );
  expect(settled).toMatchObject({ state: "ERROR", error: { code: "EXECUTION_FAILED" } });
  expect(await client.run(id, "say:more")).toMatchObject({ state: "IDLE", error: null });
});
