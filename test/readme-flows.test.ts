import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { copyFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { typedCode } from "../src/access/pairing-code.ts";
import { scratch, testApp } from "./support/app.ts";
import { Browser, emptyPage } from "./support/browser.ts";
import { authorize } from "./support/log-in.ts";
import { run, SshLab } from "./support/ssh-lab.ts";

setDefaultTimeout(60_000);

const secured = { PA_AUTH_MODE: "ssh", PA_TLS_ENABLED: "true", PA_INSECURE: "false" };
const lab = new SshLab();
afterAll(() => lab[Symbol.dispose]());

/** The code of a language in the README's section about logging in. */
async function code(language: "ts" | "js"): Promise<string> {
  const text = await Bun.file(join(import.meta.dir, "../README.md")).text();
  const section = /<!-- logging-in -->(.*)<!-- \/logging-in -->/s.exec(text)?.[1] ?? "";
  const found = new RegExp(`\`\`\`${language}\n(.*?)\`\`\``, "s").exec(section)?.[1];
  if (!found) throw new Error(`Cannot find the ${language} of logging in`);
  return found;
}

test("the README's script logs in with a key of ssh-keygen, and not at another server", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const key = join(home, "id_ed25519");
  run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "me", "-f", key]);
  await mkdir(join(home, "data"), { mode: 0o700 });
  await authorize(join(home, "data"), await Bun.file(`${key}.pub`).text());
  const app = stack.use(await testApp(secured, { home }));
  const other = stack.use(await testApp(secured));
  const script = join(home, "login.ts");
  await Bun.write(script, await code("ts"));
  const login = async (host: string, certificate: string) => {
    const child = Bun.spawn([process.execPath, script, host, key, certificate], {
      cwd: home,
      env: { PATH: process.env["PATH"], HOME: home },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    return (await child.stdout.text()) + (await child.stderr.text());
  };
  const own = join(home, "data", "certs", "server.crt");
  expect(await login(app.url.host, own)).toMatch(/^auth_success .*name: "me",\s+scope: "full"/s);
  const foreign = join(home, "foreign.crt");
  await copyFile(join(other.dataDir, "certs", "server.crt"), foreign);
  // A server that shows another key is not even spoken to.
  expect(await login(app.url.host, foreign)).not.toContain("auth_success");
});

test("the README's browser code is paired once, and logs in with its key from then on", async () => {
  await using stack = new AsyncDisposableStack();
  const site = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: emptyPage });
  stack.defer(() => site.stop(true));
  const app = stack.use(await testApp({ ...secured, PA_SERVER_ALLOWED_ORIGINS: site.url.origin }));
  const browser = stack.use(await Browser.start());
  const page = await browser.open(site.url);
  const evaluate = async (expression: string): Promise<unknown> => await page.evaluate(expression);
  const offer = app.app.access.pairing.open({
    scope: "approve",
    confirm: async () => true,
    ended: () => undefined,
  });
  // As a classic script, so that its functions stay there for the next expressions.
  await page.addScriptTag({ content: await code("js") });
  const ask = (type: string, data: string) => `(async () => {
    const socket = new WebSocket("wss://${app.url.host}/ws");
    const next = () => new Promise((resolve) => {
      socket.onmessage = ({ data }) => resolve(JSON.parse(data));
      socket.onclose = ({ code }) => resolve(code);
    });
    const hello = (await next()).data;
    const host = ${JSON.stringify(app.url.host)};
    globalThis.keys ??= await newKeys();
    socket.send(JSON.stringify({ type: ${JSON.stringify(type)}, data: await ${data} }));
    return await next();
  })()`;
  const login = ask("auth_response", "login(keys, host, hello)");
  expect(await evaluate(login)).toMatchObject({ data: { code: "UNAUTHORIZED" } });
  const given = JSON.stringify({ code: typedCode(offer.code), name: "A browser" });
  const paired = await evaluate(ask("auth_pair", `pairing(keys, host, hello, ${given})`));
  expect(paired).toMatchObject({
    type: "auth_success",
    data: { device: { name: "A browser", scope: "approve" }, server_mac: expect.any(String) },
  });
  expect(await evaluate(login)).toMatchObject({
    type: "auth_success",
    data: { device: { name: "A browser", scope: "approve" } },
  });
  const exported =
    "crypto.subtle.exportKey('jwk', keys.privateKey).then(() => 'shown', () => 'kept')";
  expect(await evaluate(exported)).toBe("kept");
});
