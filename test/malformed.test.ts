import { expect, setDefaultTimeout, test } from "bun:test";
import * as fc from "fast-check";
import { clientMessages } from "../src/contract/messages.ts";
import { type TestApp, testApp } from "./support/app.ts";
import type { Client, Frame } from "./support/client.ts";

setDefaultTimeout(120_000);

const frames = 10_000;
const batch = 100;

const requestId = fc.oneof(
  fc.constant(undefined),
  fc.string({ minLength: 1, maxLength: 128, unit: "binary" }).filter((id) => id.length <= 128),
  fc.oneof(fc.constant(""), fc.integer(), fc.constant(null), fc.string({ minLength: 129 })),
);
const junk = fc.jsonValue({ maxDepth: 3 });
const hostile = fc.oneof(junk, fc.constant({ x: "polluted" }));
const inherited = Reflect.ownKeys(Object.prototype);
const types = Object.keys(clientMessages);
const fields = fc.dictionary(fc.string(), junk, { maxKeys: 4 });

/** Objects, each with something wrong in it that no accident makes right. */
const objects = fc.oneof(
  fields.filter(({ type }) => typeof type !== "string"),
  fc.record({ type: fc.string().filter((type) => !types.includes(type)), data: junk }),
  fc.record({
    type: fc.constantFrom(...types),
    data: fc.oneof(fc.string(), fc.integer(), fc.array(junk)),
  }),
  fc.record({
    type: fc.constantFrom(...types),
    project_id: fc.uuid(),
    data: fc
      .tuple(fields, fc.constantFrom("__proto__", "constructor", "x-unknown", ""), hostile)
      .map(([known, name, value]) => Object.fromEntries([...Object.entries(known), [name, value]])),
  }),
  fc.record({
    type: fc.constantFrom(...types),
    project_id: fc.oneof(fc.integer(), fc.array(junk), fields),
    data: fields,
  }),
);
const message = fc
  .tuple(objects, requestId)
  .map(([object, request_id]) => JSON.stringify({ ...object, request_id }));

const isObject = (text: string): boolean => {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    // Not JSON: exactly what is being looked for.
    return false;
  }
};
/** Frames that are no JSON objects at all. */
const noise = fc.oneof(
  fc.string({ unit: "binary" }).filter((text) => !isObject(text)),
  junk.map((value) => JSON.stringify(value)).filter((text) => !isObject(text)),
  fc.tuple(message, fc.nat()).map(([text, at]) => text.slice(0, at % text.length)),
  fc.integer({ min: 33, max: 2_000 }).map((levels) => `{"type":${"[".repeat(levels)}`),
  fc.uint8Array({ maxLength: 64 }),
);

/** The request_id that an answer to this frame must carry. */
function readableId(frame: string | Uint8Array): string | undefined {
  if (typeof frame !== "string" || !isObject(frame)) return undefined;
  const { request_id } = JSON.parse(frame);
  const fits = typeof request_id === "string" && request_id !== "" && request_id.length <= 128;
  return fits ? request_id : undefined;
}

/** Sends each frame with a ping behind it, and gives what came before each pong. */
async function answers(client: Client, sent: readonly (string | Uint8Array)[]): Promise<Frame[][]> {
  const begin = client.received.length;
  const mark = crypto.randomUUID();
  for (const [at, frame] of sent.entries()) {
    client.socket.send(frame);
    client.send("ping", { request_id: `${mark}${at}` });
  }
  const last = `${mark}${sent.length - 1}`;
  await client.find(({ request_id }) => request_id === last, "the last pong", begin);
  const groups: Frame[][] = [[]];
  for (const frame of client.received.slice(begin)) {
    if (frame.request_id?.startsWith(mark)) groups.push([]);
    else if (frame.type !== "server_stats") groups.at(-1)?.push(frame);
  }
  return groups.slice(0, -1);
}

async function keepAsking(app: TestApp, signal: AbortSignal): Promise<number> {
  const client = await app.client();
  let served = 0;
  for (; !signal.aborted; served += 1) await client.expect("pong", "ping");
  return served;
}

test(`${frames} malformed frames: each gets one typed error with its request_id, and nobody else notices`, async () => {
  await using app = await testApp({ PA_LIMITS_MESSAGE_RATE: "1000000" });
  const client = await app.client();
  const over = new AbortController();
  const other = keepAsking(app, over.signal);
  const malformed = fc.oneof({ weight: 3, arbitrary: message }, { weight: 2, arbitrary: noise });
  await fc.assert(
    fc.asyncProperty(
      fc.array(malformed, { minLength: batch, maxLength: batch, size: "max" }),
      async (sent) => {
        const received = await answers(client, sent);
        expect(received).toHaveLength(sent.length);
        for (const [at, frame] of sent.entries()) {
          expect(received[at]).toHaveLength(1);
          expect(received[at]?.[0]?.type).toBe("error");
          expect(received[at]?.[0]?.request_id).toBe(readableId(frame));
        }
      },
    ),
    { numRuns: frames / batch, endOnFailure: true },
  );
  over.abort();
  expect(await other).toBeGreaterThan(0);
  const errors = client.received.filter(({ type }) => type === "error");
  expect(errors).toHaveLength(frames);
  const codes = new Set(errors.map(({ data }) => Reflect.get(data, "code")));
  expect(codes).toEqual(new Set(["INVALID_MESSAGE"]));
  expect(Reflect.get({}, "x")).toBeUndefined();
  expect(Reflect.ownKeys(Object.prototype)).toEqual(inherited);
  expect(app.lines.filter(({ level }) => level === "error")).toEqual([]);
});
