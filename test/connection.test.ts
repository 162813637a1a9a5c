import { expect, test } from "bun:test";
import { testApp } from "./support/app.ts";
import { until } from "./support/claude-lab.ts";
import { Client } from "./support/client.ts";
import { opcodes, RawWebSocket } from "./support/raw-websocket.ts";

const quick = { PA_PING_INTERVAL: "200ms", PA_PONG_TIMEOUT: "200ms" };

test("the first frame is hello, and says what is served", async () => {
  await using app = await testApp();
  await using client = await app.client();
  expect(client.received[0]).toMatchObject({
    type: "hello",
    data: {
      protocol: 1,
      server: { name: "pocket-agent-server", id: expect.stringMatching(/^SHA256:\S{43}$/) },
      auth: { required: false },
    },
  });
});

test("the id in hello is the same on every connection", async () => {
  await using app = await testApp();
  const ids = await Promise.all(
    Array.from({ length: 3 }, async () => {
      const { data } = await (await app.client()).next("hello", () => true);
      return data.server.id;
    }),
  );
  expect(new Set(ids).size).toBe(1);
});

test("a client that offers pocket-agent.v1 gets it selected, and one that offers none gets none", async () => {
  await using app = await testApp();
  const offers = async (offered?: string) => {
    using raw = await RawWebSocket.open(app.url, {
      headers: offered === undefined ? {} : { "Sec-WebSocket-Protocol": offered },
    });
    return [raw.status, raw.header("sec-websocket-protocol")];
  };
  expect(await offers()).toEqual([101, undefined]);
  expect(await offers("pocket-agent.v1")).toEqual([101, "pocket-agent.v1"]);
  expect(await offers("pocket-agent.v2, pocket-agent.v1")).toEqual([101, "pocket-agent.v1"]);
  expect(await offers("graphql-ws")).toEqual([101, undefined]);
});

test("a client that offers only unknown versions is refused with the one that is served", async () => {
  await using app = await testApp();
  using raw = await RawWebSocket.open(app.url, {
    headers: { "Sec-WebSocket-Protocol": "pocket-agent.v2, pocket-agent.v9" },
  });
  expect(raw.status).toBe(400);
  expect(await raw.body()).toContain("pocket-agent.v1");
});

test("a plain GET of /ws is answered 426", async () => {
  await using app = await testApp();
  expect((await fetch(new URL("/ws", app.url))).status).toBe(426);
});
