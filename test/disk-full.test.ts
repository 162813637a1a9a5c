import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { ServerData } from "../src/contract/messages.ts";
import { scratch, testApp } from "./support/app.ts";
import { Client } from "./support/client.ts";
import { ServerProcess } from "./support/server-process.ts";
import { canMount, type TightDisk, tightFiles, tightFileSystem } from "./support/tight-disk.ts";

setDefaultTimeout(120_000);

const lines = 4_000;

let stack: AsyncDisposableStack;
let home: string;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  home = await scratch(stack);
});

afterEach(() => stack.disposeAsync());

type Item = ServerData<"messages_response">["messages"][number];

/** A server on a disk of little space, with two projects and somebody who watches the first. */
async function setUp(disk: TightDisk) {
  const server = stack.use(
    await ServerProcess.start({ home, by: disk.by, settings: { PA_LIMITS_MIN_FREE_DISK: "0" } }),
  );
  const watcher = stack.use(await Client.connect(server.url));
  const projects = await Promise.all(
    ["full", "other"].map(async (name) => {
      const path = join(home, "work", name);
      await mkdir(path, { recursive: true });
      return await watcher.create(path);
    }),
  );
  const [full = "", other = ""] = projects;
  return { server, watcher, full, other };
}

/** Everything that the server says it has logged of a project. */
async function history(client: Client, project_id: string): Promise<Item[]> {
  const items: Item[] = [];
  for (let more = true; more;) {
    const data = { after_seq: items.at(-1)?.seq ?? 0 };
    const reply = await client.expect("messages_response", "get_messages", { project_id, data });
    items.push(...reply.data.messages);
    more = reply.data.has_more;
  }
  return items;
}

async function state(client: Client, project_id: string) {
  const { data } = await client.expect("project_list_response", "project_list");
  return data.projects.find(({ id }) => id === project_id);
}

const health = async (client: Client) => (await client.expect("health_status", "health")).data;

/** The pid of the agent that works on a prompt, and whether it has come to an end. */
function agent(): { pid: number; ended: boolean } {
  const events = readFileSync(join(home, "agent.jsonl"), "utf8")
    .trimEnd()
    .split("\n")
    .map((line): Record<string, unknown> => JSON.parse(line));
  const started = events.findLast(
    ({ event, argv }) => event === "start" && String(argv).includes("stream-json"),
  );
  const pid = Number(started?.["pid"]);
  return { pid, ended: events.some((event) => event["event"] === "exit" && event["pid"] === pid) };
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    // There is no such process.
    return false;
  }
}

/** Fills the disk by an agent; gives what was said and the state when nothing more could be written. */
async function flood(client: Client, project_id: string, disk: TightDisk) {
  const data = { prompt: `flood:${lines}:1000` };
  await client.expect("project_state", "execute", { project_id, data });
  const notice = await client.next("notice");
  disk.fill();
  return { notice, stuck: await state(client, project_id) };
}

/** After a flood on a full disk, nothing that the agent printed may be lost or doubled. */
async function expectAll(client: Client, project_id: string): Promise<void> {
  const { last_seq } = await client.settled(project_id);
  const events = client.events(project_id);
  expect(events.map(({ seq }) => seq)).toEqual(Array.from({ length: last_seq }, (_, at) => at + 1));
  const logged = await history(client, project_id);
  expect(logged.map(({ seq }) => seq)).toEqual(Array.from(logged, (_, at) => at + 1));
  expect(logged).toHaveLength(last_seq);
  const printed = logged.flatMap(({ direction, message }) =>
    direction === "claude" && message["request_id"] === "req_flood" ? [message["uuid"]] : [],
  );
  expect(printed).toHaveLength(lines);
  expect(new Set(printed).size).toBe(lines);
  const logs = join(home, "data", "projects", project_id, "logs");
  const onDisk = readdirSync(logs).flatMap((name) =>
    readFileSync(join(logs, name), "utf8").trimEnd().split("\n"),
  );
  expect(onDisk).toHaveLength(last_seq);
}

const ways: [string, (folder: string) => TightDisk][] = [
  ["its log may not grow", () => tightFiles()],
];
if (canMount()) ways.unshift(["the disk is full", tightFileSystem]);

test.each(ways)("an agent is blocked, not lost, while %s", async (_, makeTight) => {
  const disk = stack.use(makeTight(join(home, "data")));
  const { server, watcher, full } = await setUp(disk);
  const { notice, stuck } = await flood(watcher, full, disk);

  expect(notice).toMatchObject({ project_id: full, data: { code: "STORAGE_ERROR" } });
  expect(notice.seq).toBeUndefined();
  expect(notice.data.message).not.toContain(home);
  const { status, problems } = await health(watcher);
  expect({ status, problems }).toEqual({
    status: "degraded",
    problems: [expect.stringContaining("Cannot append to the log")],
  });
  expect(stuck?.state).toBe("EXECUTING");
  const { pid, ended } = agent();
  expect(ended).toBe(false);
  expect(isAlive(pid)).toBe(true);
  // No number is given away while nothing can be written.
  expect(await state(watcher, full)).toMatchObject({ last_seq: stuck?.last_seq });

  disk.relieve(server.pid);
  const recovered = await watcher.next("notice");
  expect(recovered).toMatchObject({ project_id: full, data: { code: "STORAGE_RECOVERED" } });
  expect(recovered.seq).toBeUndefined();
  await expectAll(watcher, full);
  expect(await health(watcher)).toMatchObject({ status: "healthy", problems: [] });
});

test.each(ways.slice(0, -1))(
  "execute elsewhere is refused while %s, and costs nothing",
  async (_, makeTight) => {
    const disk = stack.use(makeTight(join(home, "data")));
    const { server, watcher, full, other } = await setUp(disk);
    await flood(watcher, full, disk);
    const before = await state(watcher, other);
    const data = { prompt: "say:hello" };
    const refused = await watcher.expect("error", "execute", { project_id: other, data });
    expect(refused.data).toMatchObject({
      code: "STORAGE_ERROR",
      details: { reason: expect.any(String) },
    });
    expect(await state(watcher, other)).toEqual(before);

    disk.relieve(server.pid);
    await expectAll(watcher, full);
    await watcher.expect("project_state", "execute", { project_id: other, data });
    await watcher.settled(other);
    expect(watcher.events(other)[0]).toMatchObject({ type: "user_message", seq: 1 });
    expect(await health(watcher)).toMatchObject({ status: "healthy" });
  },
);

test("an agent that is blocked by the disk can be killed, and the end is logged when there is room", async () => {
  const disk = stack.use(tightFiles());
  const { server, watcher, full } = await setUp(disk);
  await flood(watcher, full, disk);
  const { pid } = agent();
  const killed = await watcher.ask("agent_kill", { project_id: full, data: { force: true } });
  expect(killed).toMatchObject({ type: "error", data: { code: "STORAGE_ERROR" } });
  expect(isAlive(pid)).toBeFalse();
  disk.relieve(server.pid);
  const { last_seq } = await watcher.settled(full);
  expect(watcher.events(full).map(({ seq }) => seq)).toEqual(
    Array.from({ length: last_seq }, (_, at) => at + 1),
  );
  expect(await state(watcher, full)).toMatchObject({ state: "IDLE", error: null });
});

test("below limits.min_free_disk a prompt is refused before anything is logged", async () => {
  const app = stack.use(await testApp({ PA_LIMITS_MIN_FREE_DISK: "8000000GB" }, { home }));
  const client = await app.client();
  const project_id = await client.create(await app.directory());
  const data = { prompt: "say:hello" };
  const refused = await client.expect("error", "execute", { project_id, data });
  expect(refused.data).toMatchObject({ code: "RESOURCE_LIMIT", details: { resource: "disk" } });
  expect(await state(client, project_id)).toMatchObject({ state: "IDLE", last_seq: 0 });
  expect((await health(client)).status).toBe("degraded");
});
