import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { ServerData } from "../src/contract/messages.ts";
import { type TestApp, testApp } from "./support/app.ts";
import type { Client, Frame } from "./support/client.ts";

setDefaultTimeout(60_000);

type Query = Partial<Record<"after_seq" | "before_seq" | "limit", number>> & { since?: string };
type Page = ServerData<"messages_response">;
type Item = Page["messages"][number];

let app: TestApp;
let client: Client;
let project_id: string;
/** The text of every frame, for what parsing would hide. */
let texts: string[];

beforeEach(async () => {
  app = await testApp({ PA_LOG_ROTATION_COUNT: "7", PA_LIMITS_MESSAGE_RATE: "100000" });
  client = await app.client();
  texts = [];
  client.socket.addEventListener("message", ({ data }) => texts.push(String(data)));
  project_id = await client.create(await app.directory());
});

afterEach(() => app[Symbol.asyncDispose]());

async function run(prompt: string, rest: object = {}): Promise<ServerData<"project_state">> {
  await client.expect("project_state", "execute", { project_id, data: { prompt, ...rest } });
  return await client.settled(project_id);
}

async function page(data: Query = {}): Promise<Page> {
  const reply = await client.expect("messages_response", "get_messages", { project_id, data });
  expect(reply.project_id).toBe(project_id);
  return reply.data;
}

async function forwards(limit: number): Promise<Item[]> {
  const items: Item[] = [];
  for (let more = true; more;) {
    const { messages, has_more } = await page({ after_seq: items.at(-1)?.seq ?? 0, limit });
    expect(messages.length).toBeLessThanOrEqual(limit);
    items.push(...messages);
    more = has_more;
  }
  return items;
}

async function backwards(limit: number): Promise<Item[]> {
  const items: Item[] = [];
  for (let more = true; more;) {
    const first = items[0];
    const { messages, has_more } = await page(first ? { before_seq: first.seq, limit } : { limit });
    items.unshift(...messages);
    more = has_more;
  }
  return items;
}

const seqs = ({ messages }: Page) => messages.map(({ seq }) => seq);
const upTo = (last: number, first = 1) =>
  Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => first + index);

const size = (item: Item) => JSON.stringify(item).length;

/** What a subscriber is sent for a record of the history. */
function asEvent({ seq, timestamp, direction, message }: Item): object {
  if (direction === "claude") return { type: "agent_message", seq, timestamp, data: message };
  const type = direction === "client" ? "user_message" : message.type;
  return { type, seq, timestamp, data: message.data };
}

const asSeen = ({ type, seq, timestamp, data }: Frame) => ({ type, seq, timestamp, data });

describe("a record is rendered", () => {
  test("as client/execute for a prompt, which live is user_message", async () => {
    await run("say:hello", {
      options: { model: "opus", max_turns: 3 },
      images: [{ media_type: "image/png", data: "iVBORw0KGgo=" }],
    });
    const { messages } = await page({ limit: 1, after_seq: 0 });
    const live = await client.find(({ type }) => type === "user_message", "user_message");
    expect(messages).toEqual([
      {
        seq: 1,
        timestamp: live.timestamp,
        direction: "client",
        message: {
          type: "execute",
          data: {
            execution_id: expect.any(String),
            prompt: "say:hello",
            options: { model: "opus", max_turns: 3 },
            images: 1,
            device: null,
          },
        },
      },
    ]);
    expect(messages[0]?.message.data).toEqual(live.data);
  });

  test("as type and data for what the server said", async () => {
    await run("error:it broke");
    const { messages } = await page();
    const said = messages.filter(({ direction }) => direction === "server");
    expect(said.map(({ message }) => message.type)).toEqual([
      "project_state",
      "error",
      "project_state",
    ]);
    expect(said[1]?.message.data).toMatchObject({ code: "EXECUTION_FAILED" });
    expect(said[2]?.message.data).toMatchObject({ state: "ERROR", last_seq: said[2]?.seq });
  });

  test("byte for byte as the agent printed it, live and in the history", async () => {
    const odd = [
      '{"type":"odd","number":1.0,"big":12345678901234567890,"exponent":1E+2,"minus":-0}',
      '{"type":"odd","twice":1,"twice":2,"__proto__":{"x":1}}',
      '{"type":"odd","escaped":"\\u00e9\\/\\ud83d\\ude00","raw":"é/😀\u2028\u200b"}',
      '{ "type" : "odd" , "spaces":[ 1 ,\t2 ] }',
      '{"type":"odd","seq":7,"timestamp":"1999-01-01T00:00:00.000Z","direction":"client","message":{}}',
    ];
    await run(odd.map((line) => `junk:${line}`).join("\n"));
    await page();
    const history = texts.at(-1) ?? "";
    for (const line of odd) {
      expect(texts.filter((text) => text.endsWith(`,"data":${line}}`))).toHaveLength(1);
      expect(history).toContain(`"direction":"claude","message":${line}}`);
    }
  });
});

describe("get_messages", () => {
  let last: number;

  beforeEach(async () => {
    await run("say:one");
    await run("flood:30");
    ({ last_seq: last } = await run("say:three"));
    const logs = readdirSync(join(app.dataDir, "projects", project_id, "logs"));
    expect(logs.filter((name) => name.endsWith(".jsonl")).length).toBeGreaterThan(2);
  });

  test("without bounds gives the newest page, oldest first", async () => {
    const all = await page();
    expect(seqs(all)).toEqual(upTo(last));
    expect(all.has_more).toBe(false);
    const newest = await page({ limit: 10 });
    expect(seqs(newest)).toEqual(upTo(last, last - 9));
    expect(newest.has_more).toBe(true);
    expect(newest.messages).toEqual(all.messages.slice(-10));
    expect(await page({ limit: last })).toEqual(all);
  });

  test("after_seq is exclusive and pages towards the end", async () => {
    for (const after_seq of [0, 1, 6, 7, 8, last - 5, last - 4]) {
      const some = await page({ after_seq, limit: 5 });
      expect(seqs(some)).toEqual(upTo(Math.min(last, after_seq + 5), after_seq + 1));
      expect(some.has_more).toBe(after_seq + 5 < last);
    }
    expect(await page({ after_seq: last })).toEqual({ messages: [], has_more: false });
    expect(await page({ after_seq: last + 100 })).toEqual({ messages: [], has_more: false });
  });

  test("before_seq is exclusive and pages towards the beginning", async () => {
    for (const before_seq of [last + 100, last + 1, last, 15, 14, 8, 7, 6, 2]) {
      const some = await page({ before_seq, limit: 5 });
      const end = Math.min(last, before_seq - 1);
      expect(seqs(some)).toEqual(upTo(end, Math.max(1, end - 4)));
      expect(some.has_more).toBe(end > 5);
    }
    expect(await page({ before_seq: 1 })).toEqual({ messages: [], has_more: false });
  });

  test("bounds intersect", async () => {
    expect(seqs(await page({ after_seq: 5, before_seq: 12 }))).toEqual(upTo(11, 6));
    expect(seqs(await page({ after_seq: 5, before_seq: 6 }))).toEqual([]);
    const cut = await page({ after_seq: 5, before_seq: 12, limit: 3 });
    expect([seqs(cut), cut.has_more]).toEqual([upTo(8, 6), true]);
    const whole = await page({ after_seq: 5, before_seq: 12, limit: 6 });
    expect([seqs(whole), whole.has_more]).toEqual([upTo(11, 6), false]);
  });

  test("since is exclusive, in any time zone, and intersects with the numbers", async () => {
    const { messages } = await page();
    const times = messages.map(({ timestamp }) => timestamp);
    expect(times).toEqual(times.toSorted());
    const middle = times[Math.floor(last / 2)] ?? "";
    const after = messages.filter(({ timestamp }) => timestamp > middle);
    expect((await page({ since: middle })).messages).toEqual(after);
    const shifted = new Date(Date.parse(middle) + 7_200_000).toISOString();
    const elsewhere = shifted.replace("Z", "+02:00");
    expect((await page({ since: elsewhere })).messages).toEqual(after);
    expect((await page({ since: "2001-01-01", before_seq: 4 })).messages).toEqual(
      messages.slice(0, 3),
    );
    expect((await page({ since: "2001-01-01", limit: 3 })).messages).toEqual(messages.slice(0, 3));
    const since = times.at(-1) ?? "";
    expect(await page({ since })).toEqual({ messages: [], has_more: false });
  });

  test("refuses bounds that are none", async () => {
    const bad = [
      { limit: 0 },
      { limit: 1001 },
      { limit: 1.5 },
      { after_seq: -1 },
      { before_seq: "1" },
      { since: "yesterday" },
      { since: "2024-13-01" },
      { sinse: "2024-01-01" },
    ];
    for (const data of bad) {
      const { code, details } = (await client.expect("error", "get_messages", { project_id, data }))
        .data;
      expect([code, details]).toEqual(["INVALID_MESSAGE", { path: Object.keys(data)[0] }]);
    }
  });

  test("paged backwards, paged forwards and seen live are the same, each record once", async () => {
    const all = await forwards(4);
    expect(all.map(({ seq }) => seq)).toEqual(upTo(last));
    for (const limit of [1, 3, 7, 8, 1000]) {
      expect(await backwards(limit)).toEqual(all);
      expect(await forwards(limit)).toEqual(all);
    }
    expect(all.map(asEvent)).toEqual(client.events(project_id).map(asSeen));
  });

  test("says the same after new records, and of a project that never ran nothing", async () => {
    const before = await page({ before_seq: 10 });
    await run("say:more");
    expect(await page({ before_seq: 10 })).toEqual(before);
    const path = await app.directory();
    const empty = { project_id: await client.create(path) };
    const reply = await client.expect("messages_response", "get_messages", empty);
    expect(reply.data).toEqual({ messages: [], has_more: false });
  });
});

describe("pages of about 1 MiB", () => {
  const mebibyte = 1_048_576;

  test("hold fewer records than asked for when they are large", async () => {
    const { last_seq } = await run("flood:40:100000");
    let seen = 0;
    for (let more = true; more;) {
      const { messages, has_more } = await page({ after_seq: seen });
      const bytes = messages.reduce((sum, item) => sum + size(item), 0);
      expect(bytes).toBeLessThan(1.1 * mebibyte);
      if (has_more) expect(bytes).toBeGreaterThan(0.8 * mebibyte);
      expect(messages[0]?.seq).toBe(seen + 1);
      seen = messages.at(-1)?.seq ?? 0;
      more = has_more;
    }
    expect(seen).toBe(last_seq);
    expect((await backwards(1000)).map(({ seq }) => seq)).toEqual(upTo(last_seq));
  });

  test("hold at least one, however large it is", async () => {
    const { last_seq } = await run("big:3000000");
    const all = await forwards(1000);
    expect(all.map(({ seq }) => seq)).toEqual(upTo(last_seq));
    const large = all.filter((item) => size(item) > 3_000_000);
    expect(large.length).toBeGreaterThan(0);
    for (const item of large) {
      const [onward, back] = [
        await page({ after_seq: item.seq - 1 }),
        await page({ before_seq: item.seq + 1 }),
      ];
      expect(onward).toEqual({ messages: [item], has_more: item.seq < last_seq });
      expect(back).toEqual({ messages: [item], has_more: true });
    }
    expect(await backwards(1000)).toEqual(all);
    expect(all.map(asEvent)).toEqual(client.events(project_id).map(asSeen));
  });
});
