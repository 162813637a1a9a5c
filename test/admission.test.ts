import { afterAll, beforeAll, expect, test } from "bun:test";
import { hostname } from "node:os";
import { testApp, type TestApp } from "./support/app.ts";
import { RawSocket } from "./support/raw-socket.ts";

let app: TestApp;
beforeAll(async () => {
  app = await testApp({
    PA_SERVER_ALLOWED_HOSTS: "agent.example:443,proxy.example",
    PA_SERVER_ALLOWED_ORIGINS: "capacitor://localhost,https://agent.example",
  });
});
afterAll(() => app[Symbol.asyncDispose]());

/** `PORT` stands for the port that the server has. */
const hosts = {
  good: [
    "127.0.0.1:PORT",
    "localhost:PORT",
    "LOCALHOST:PORT",
    "[::1]:PORT",
    `${hostname()}:PORT`,
    "agent.example:443",
    "proxy.example:80",
    "proxy.example",
  ],
  bad: [
    "127.0.0.1",
    "localhost:1",
    "localhost.:PORT",
    "evil.example:PORT",
    "localhost.evil.example:PORT",
    "evillocalhost:PORT",
    "user@localhost:PORT",
    "localhost:PORT:PORT",
    "[",
    "",
    "0.0.0.0:PORT",
    "localhost:PORT, evil.example",
  ],
};
const origins = {
  good: [
    undefined,
    "http://127.0.0.1:PORT",
    "http://localhost:PORT",
    "capacitor://localhost",
    "https://agent.example",
  ],
  bad: [
    "null",
    "file://",
    "https://localhost:PORT",
    "http://localhost",
    "http://localhost:1",
    "http://localhost:PORT.evil.example",
    "http://evil.example:PORT",
    "http://localhost:PORT@evil.example",
    "http://localhost:PORT/",
    "HTTP://localhost:PORT",
    "capacitor://localhost.evil.example",
    "http://localhost:PORT, http://evil.example",
  ],
};

const filled = (text: string) => text.replaceAll("PORT", app.url.port);

async function status(host: string, origin: string | undefined): Promise<number | undefined> {
  using raw = await RawSocket.open(app.url, {
    headers: {
      Host: filled(host),
      ...(origin === undefined ? {} : { Origin: filled(origin) }),
    },
  });
  return raw.status;
}

test("of every host and origin only the server's own and the allowed ones get in", async () => {
  const wrong: string[] = [];
  for (const host of [...hosts.good, ...hosts.bad])
    for (const origin of [...origins.good, ...origins.bad]) {
      const found = await status(host, origin);
      const refused = origins.bad.includes(origin ?? "") ? 403 : 101;
      const expected = hosts.bad.includes(host) ? 421 : refused;
      if (found !== expected) wrong.push(`${host} ${origin}: ${found}, not ${expected}`);
    }
  expect(wrong).toEqual([]);
  expect(app.lines.filter(({ level }) => level === "error")).toEqual([]);
});

test("a rebound name does not reach the HTTP endpoints either", async () => {
  for (const path of ["/health", "/metrics", "/ws"]) {
    const response = await fetch(new URL(path, app.url), { headers: { host: "evil.example" } });
    expect(response.status).toBe(421);
  }
  const text = await app.metrics.text();
  expect(text).toMatch(/connections_refused_total{reason="host"} [1-9]/);
  expect(text).toMatch(/connections_refused_total{reason="origin"} [1-9]/);
});

async function connectFrom(address: string, to: TestApp): Promise<number> {
  using raw = await RawSocket.open(to.url, { headers: { "X-Forwarded-For": address } });
  return raw.status;
}

test("X-Forwarded-For counts only from a trusted proxy", async () => {
  await using strict = await testApp({ PA_CONNECTION_RATE: "1" });
  await using proxied = await testApp({
    PA_CONNECTION_RATE: "1",
    PA_SERVER_TRUSTED_PROXIES: "127.0.0.1",
  });
  const addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"];
  const ask = (to: TestApp) => Promise.all(addresses.map((address) => connectFrom(address, to)));
  expect(await ask(strict)).toContain(429);
  expect(await ask(proxied)).toEqual([101, 101, 101, 101]);
});
