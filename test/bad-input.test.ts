import { expect, setDefaultTimeout, test } from "bun:test";
import { testApp } from "./support/app.ts";
import type { Client, Frame } from "./support/client.ts";
import { opcodes, RawSocket } from "./support/raw-socket.ts";

setDefaultTimeout(60_000);

const nobody = crypto.randomUUID();

/** Sends a frame as it is, and gives the error that answers it. */
async function refused(client: Client, frame: string | Uint8Array): Promise<Frame<"error">> {
  const before = client.received.length;
  client.socket.send(frame);
  client.send("ping", { request_id: `behind-${before}` });
  await client.find(({ request_id }) => request_id === `behind-${before}`, "the pong behind it");
  const [answer, ...more] = client.received.slice(before).filter(({ seq }) => seq === undefined);
  expect(more).toHaveLength(1);
  if (answer?.type !== "error") throw new Error(`Not refused: ${JSON.stringify(answer)}`);
  return answer;
}

const deep = (levels: number) => `${'{"a":'.repeat(levels)}1${"}".repeat(levels)}`;

test.each([
  ["no JSON", "hello"],
  ["nothing", ""],
  ["cut off", '{"type":"ping"'],
  ["two objects", '{"type":"ping"}{"type":"ping"}'],
  ["an array", '[{"type":"ping"}]'],
  ["a string", '"ping"'],
  ["a number", "1e999"],
  ["null", "null"],
  ["a NUL", "\0"],
  ["a byte order mark", '\ufeff{"type":"ping"}'],
  ["nested 33 levels deep", deep(33)],
  ["nested 100,000 levels deep", deep(100_000)],
  ["100,000 open brackets", "[".repeat(100_000)],
])("a frame that is %s is INVALID_MESSAGE", async (_, frame) => {
  await using app = await testApp();
  const { data, request_id } = await refused(await app.client(), frame);
  expect(data.code).toBe("INVALID_MESSAGE");
  expect(data.message).toStartWith("Cannot read the frame: ");
  expect(request_id).toBeUndefined();
});

test("a binary frame is INVALID_MESSAGE, even if it holds a good message", async () => {
  await using app = await testApp();
  const frame = new TextEncoder().encode('{"type":"ping","request_id":"b"}');
  const { data } = await refused(await app.client(), frame);
  expect(data).toEqual({
    code: "INVALID_MESSAGE",
    message: "Cannot read a binary frame: send JSON as text",
  });
});

test("32 levels are not too deep, and brackets inside of strings are none", async () => {
  await using app = await testApp();
  const client = await app.client();
  const nested = await refused(client, `{"type":"nonsense","data":${deep(31)}}`);
  expect(nested.data.details).toEqual({ path: "type" });
  const quoted = JSON.stringify({ type: "nonsense", text: `\\"${"[{".repeat(50)}` });
  expect((await refused(client, quoted)).data.details).toEqual({ path: "type" });
});

const execute = (data: object) => ({ type: "execute", project_id: nobody, data });
const tooMany = Array.from({ length: 101 }, () => ({ media_type: "image/png", data: "aGk=" }));
const options = (given: object) => execute({ prompt: "x", options: given });

test.each<[string, object, string]>([
  ["no type", {}, "type"],
  ["a type that is a number", { type: 1 }, "type"],
  ["an unknown type", { type: "project_created" }, "type"],
  ["a type of the prototype", { type: "constructor" }, "type"],
  ["a type that is __proto__", { type: "__proto__" }, "type"],
  ["data that is an array", { type: "ping", data: [] }, "data"],
  ["data that is a huge array", { type: "ping", data: Array(100_000).fill(0) }, "data"],
  ["data that is a string", { type: "ping", data: "x" }, "data"],
  ["no project_id", { type: "execute", data: { prompt: "x" } }, "project_id"],
  ["an empty project_id", { type: "agent_kill", project_id: "" }, "project_id"],
  ["a project_id of null", { type: "agent_kill", project_id: null }, "project_id"],
  ["an endless project_id", { type: "agent_kill", project_id: "x".repeat(129) }, "project_id"],
  ["a project_id that is an object", { type: "agent_kill", project_id: {} }, "project_id"],
  [
    "two different project_ids",
    { type: "agent_kill", project_id: nobody, data: { project_id: crypto.randomUUID() } },
    "project_id",
  ],
  ["a field that ping does not have", { type: "ping", data: { pnig: 1 } }, "pnig"],
  ["a field that execute does not have", execute({ prompt: "x", promt: 1 }), "promt"],
  ["an option that there is not", options({ modle: "opus" }), "options.modle"],
  ["an option that is never remote", options({ settings: "{}" }), "options.settings"],
  ["a missing field", { type: "project_create", data: {} }, "path"],
  ["data missing where it is needed", { type: "project_create" }, "path"],
  ["data of null where it is needed", { type: "project_create", data: null }, "path"],
  ["a path that is a number", { type: "project_create", data: { path: 1 } }, "path"],
  ["an empty path", { type: "project_create", data: { path: "" } }, "path"],
  ["an endless path", { type: "project_create", data: { path: `/${"a".repeat(5000)}` } }, "path"],
  ["a trusted of null", { type: "project_create", data: { path: "/", trusted: null } }, "trusted"],
  ["no prompt", execute({}), "prompt"],
  ["an empty prompt", execute({ prompt: "" }), "prompt"],
  ["a blank prompt", execute({ prompt: " \n\t\u00a0" }), "prompt"],
  ["a prompt that is an array", execute({ prompt: ["x"] }), "prompt"],
  ["options that are an array", execute({ prompt: "x", options: [] }), "options"],
  [
    "a tool rule that smuggles another",
    options({ allowed_tools: ["Read(x),Bash"] }),
    "options.allowed_tools.0",
  ],
  ["a model that is a flag", options({ model: "--settings={}" }), "options.model"],
  ["too many images", execute({ prompt: "x", images: tooMany }), "images"],
  ["a limit of 0", { type: "get_messages", project_id: nobody, data: { limit: 0 } }, "limit"],
  [
    "a limit over 1000",
    { type: "get_messages", project_id: nobody, data: { limit: 1001 } },
    "limit",
  ],
  [
    "a number that is none",
    { type: "project_join", project_id: nobody, data: { after_seq: -1 } },
    "after_seq",
  ],
  [
    "a time that never was",
    { type: "get_messages", project_id: nobody, data: { since: "2026-13-41" } },
    "since",
  ],
  ["a force of 1", { type: "agent_kill", project_id: nobody, data: { force: 1 } }, "force"],
])("a message with %s is INVALID_MESSAGE, and says which field", async (_, message, path) => {
  await using app = await testApp();
  const client = await app.client();
  const { data, request_id } = await refused(
    client,
    JSON.stringify({ ...message, request_id: "q" }),
  );
  expect(data).toMatchObject({ code: "INVALID_MESSAGE", details: { path } });
  expect(data.message).toStartWith("Cannot read ");
  expect(request_id).toBe("q");
});

test("unknown fields beside data are ignored", async () => {
  await using app = await testApp();
  const client = await app.client();
  client.socket.send('{"type":"ping","request_id":"extra","version":2,"__proto__":{"a":1}}');
  const reply = await client.find(({ request_id }) => request_id === "extra", "the pong");
  expect(reply.type).toBe("pong");
});

test("__proto__, constructor and the like are fields like any other that is not known", async () => {
  await using app = await testApp();
  const client = await app.client();
  for (const key of ["__proto__", "constructor", "prototype", "toString", "hasOwnProperty"]) {
    const { data } = await refused(client, `{"type":"ping","data":{"${key}":{"polluted":true}}}`);
    expect(data.details).toEqual({ path: key });
    const inside = `{"type":"execute","project_id":"${nobody}","data":{"prompt":"x","options":{"${key}":{}}}}`;
    expect((await refused(client, inside)).data.details).toEqual({ path: `options.${key}` });
  }
  expect(Reflect.get({}, "polluted")).toBeUndefined();
});

test.each([
  "project_delete",
  "project_join",
  "project_leave",
  "agent_kill",
  "agent_new_session",
  "get_messages",
] as const)("%s of an unknown project is PROJECT_NOT_FOUND", async (type) => {
  await using app = await testApp();
  const client = await app.client();
  const outside = await client.ask(type, { project_id: nobody });
  const inside = await client.ask(type, { data: { project_id: nobody } });
  for (const { data } of [outside, inside])
    expect(data).toMatchObject({ code: "PROJECT_NOT_FOUND" });
});

test("a relative path is INVALID_PATH", async () => {
  await using app = await testApp();
  const client = await app.client();
  for (const path of ["work", "./work", "~", "~/work", "../work", "/tmp/../tmp"]) {
    const { data } = await client.ask("project_create", { data: { path } });
    expect(data).toMatchObject({ code: "INVALID_PATH" });
  }
});

test("every error carries the request_id, if it is a string of 1 to 128 characters", async () => {
  await using app = await testApp();
  const client = await app.client();
  const echoed = async (request_id: unknown) =>
    (await refused(client, JSON.stringify({ type: "nonsense", request_id }))).request_id;
  for (const id of ["a", "x".repeat(128), "\u0000\n\u2028", "\ud83d\ude00", '"}{', "\ud800"])
    expect(await echoed(id)).toBe(id);
  for (const id of ["", "x".repeat(129), 1, null, {}, ["a"], true])
    expect(await echoed(id)).toBeUndefined();
});

test("a request_id that cannot be one is the error, even of a message that is good otherwise", async () => {
  await using app = await testApp();
  const client = await app.client();
  for (const request_id of ["", "x".repeat(129), 1, null, {}, ["a"]]) {
    const { data } = await refused(client, JSON.stringify({ type: "ping", request_id }));
    expect(data).toMatchObject({ code: "INVALID_MESSAGE", details: { path: "request_id" } });
  }
});

test("what is wrong with the data is said before what is wrong with the project", async () => {
  await using app = await testApp();
  const client = await app.client();
  const { data } = await client.ask("execute", { project_id: nobody, data: { prompt: "" } });
  expect(data).toMatchObject({ code: "INVALID_MESSAGE", details: { path: "prompt" } });
});

test("a frame over limits.message_size closes 1009, and costs nobody else anything", async () => {
  await using app = await testApp();
  const [client, other] = await Promise.all([app.client(), app.client()]);
  client.socket.send("x".repeat(2 * 1024 * 1024));
  expect((await client.closed).code).toBe(1009);
  await other.expect("pong", "ping");
});

test("a frame of limits.message_size is read", async () => {
  await using app = await testApp({ PA_MESSAGE_SIZE_LIMIT: "64KB" });
  const client = await app.client();
  const frame = '{"type":"nonsense"}'.padEnd(65_536);
  expect((await refused(client, frame)).data.details).toEqual({ path: "type" });
  client.socket.send(`${frame} `);
  expect((await client.closed).code).toBe(1009);
});

test("ten frames of junk in a row close 4400, nine and a good one do not", async () => {
  await using app = await testApp();
  const [patient, client] = await Promise.all([app.client(), app.client()]);
  for (let round = 0; round < 3; round += 1) {
    for (let at = 0; at < 9; at += 1) patient.socket.send("junk");
    await patient.expect("pong", "ping");
  }
  expect(patient.received.filter(({ type }) => type === "error")).toHaveLength(27);
  for (let at = 0; at < 10; at += 1) client.socket.send("junk");
  const { code, reason } = await client.closed;
  expect({ code, reason }).toEqual({ code: 4400, reason: "too many unparsable frames" });
  expect(client.received.filter(({ type }) => type === "error")).toHaveLength(9);
  await patient.expect("pong", "ping");
});

test("messages that are objects never close a connection, however wrong they are", async () => {
  await using app = await testApp();
  const client = await app.client();
  for (let at = 0; at < 40; at += 1) client.socket.send(`{"type":"nonsense","n":${at}}`);
  await client.expect("pong", "ping");
  expect(client.received.filter(({ type }) => type === "error")).toHaveLength(40);
});

test("requests over limits.message_rate are RATE_LIMITED and say when to try again", async () => {
  await using app = await testApp({ PA_LIMITS_MESSAGE_RATE: "1" });
  const [client, other] = await Promise.all([app.client(), app.client()]);
  for (let at = 0; at < 20; at += 1) client.send("ping", { request_id: `p${at}` });
  const last = await client.find(({ request_id }) => request_id === "p19", "the last answer");
  expect(last).toMatchObject({ type: "error", data: { code: "RATE_LIMITED" } });
  const details = last.type === "error" ? last.data.details : {};
  expect(details?.["retry_after_ms"]).toBeWithin(1, 1001);
  expect(client.received.filter(({ type }) => type === "pong").length).toBeWithin(2, 20);
  await other.expect("pong", "ping");
});

test("agent_kill is never limited", async () => {
  await using app = await testApp({ PA_LIMITS_MESSAGE_RATE: "1" });
  const client = await app.client();
  for (let at = 0; at < 50; at += 1) client.send("ping");
  const { data } = await client.ask("agent_kill", { project_id: nobody });
  expect(data).toMatchObject({ code: "PROJECT_NOT_FOUND" });
});

test("a hundred rate-limited requests in a row close 4429", async () => {
  await using app = await testApp({ PA_LIMITS_MESSAGE_RATE: "1" });
  const [client, other] = await Promise.all([app.client(), app.client()]);
  for (let at = 0; at < 500; at += 1) client.send("ping");
  const { code, reason } = await client.closed;
  expect({ code, reason }).toEqual({ code: 4429, reason: "too many requests" });
  await other.expect("pong", "ping");
});

test("text that is not UTF-8 costs nobody else anything", async () => {
  await using app = await testApp();
  const other = await app.client();
  using raw = await RawSocket.open(app.url);
  raw.send(opcodes.text, Buffer.from([0x7b, 0xff, 0xfe, 0x7d]));
  await raw.until(() => raw.received.length > 1);
  await other.expect("pong", "ping");
});

test("a field that is missing is named as that", async () => {
  await using app = await testApp();
  const client = await app.client();
  expect((await refused(client, '{"type":"project_create","data":{}}')).data).toMatchObject({
    code: "INVALID_MESSAGE",
    message: "Cannot read project_create: path: it is missing",
    details: { path: "path" },
  });
});
