import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { type TestApp, testApp } from "./support/app.ts";
import { Browser, emptyPage } from "./support/browser.ts";

setDefaultTimeout(60_000);

/** A name that leads to this machine, as one does that was rebound by whoever owns it. */
const rebound = "rebound.example";
let browser: Browser;
let site: Bun.Server<undefined>;
beforeAll(async () => {
  browser = await Browser.start([`--host-resolver-rules=MAP ${rebound} 127.0.0.1`]);
  site = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: emptyPage });
});
afterAll(async () => {
  await site.stop(true);
  await browser[Symbol.asyncDispose]();
});

/** What a page can do about a server: everything it tries, and what came of it. */
const attempts = (server: string) => `(async () => {
  const base = ${JSON.stringify(server)};
  const upgrade = (protocols) => new Promise((resolve) => {
    const socket = new WebSocket(base.replace("http", "ws") + "ws", protocols);
    socket.onmessage = () => resolve("in");
    socket.onclose = () => resolve("out");
  });
  const read = async (path, init) => {
    try {
      const response = await fetch(base + path, init);
      return response.type === "opaque" ? "opaque" : response.status;
    } catch {
      return "unreadable";
    }
  };
  return {
    plain: await upgrade([]),
    named: await upgrade(["pocket-agent.v1"]),
    health: await read("health"),
    projects: await read("api/v1/projects", { credentials: "include" }),
    post: await read("api/v1/projects", { method: "POST", body: "{}" }),
    blind: await read("api/v1/projects", { mode: "no-cors" }),
  };
})()`;

async function visit(app: TestApp, page: string) {
  const visited = await browser.open(page);
  return await visited.evaluate(attempts(app.url.href));
}

const nothing = {
  plain: "out",
  named: "out",
  health: "unreadable",
  projects: "unreadable",
  post: "unreadable",
  blind: "opaque",
};

test("a page on another origin gets nowhere, even where everybody is the owner", async () => {
  await using app = await testApp();
  expect(await visit(app, site.url.href)).toEqual(nothing);
});

test("nor does one whose name was rebound to this machine", async () => {
  await using app = await testApp();
  // Its own port, so that the browser takes the server for its own origin.
  const page = await browser.open(`http://${rebound}:${app.url.port}/health`);
  expect(await page.evaluate("document.body.innerText")).toContain("Cannot serve this host");
  const own = `http://${rebound}:${app.url.port}/`;
  expect(await page.evaluate(attempts(own))).toMatchObject({
    plain: "out",
    named: "out",
    health: 421,
    projects: 421,
    post: 421,
  });
});

test("a page on an allowed origin gets in: the browser and the attempts work", async () => {
  const origin = site.url.origin;
  await using app = await testApp({ PA_SERVER_ALLOWED_ORIGINS: origin });
  expect(await visit(app, site.url.href)).toMatchObject({ plain: "in", named: "in" });
});
