import { expect, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { Lab } from "./lab.ts";

const readme = join(import.meta.dir, "../../README.md");

/** As a server is without any configuration. */
const locked = {
  PA_SERVER_HOST: "0.0.0.0",
  PA_TLS_ENABLED: "true",
  PA_AUTH_MODE: "ssh",
  PA_INSECURE: "false",
};

test("the README's script prints the tokens, and its second run continues the conversation", async () => {
  await using lab = await Lab.start(locked);
  const script = join(lab.home, "client.ts");
  const directory = join(lab.home, "work");
  const source = await quickstart();
  expect(source.trim().split("\n").length).toBeLessThanOrEqual(20);
  await Bun.write(script, source);
  await mkdir(directory);
  const url = `wss://127.0.0.1:${lab.server.url.port}/ws`;
  const main = join(import.meta.dir, "../../src/main.ts");
  const data = join(lab.home, "data");
  const asked = Bun.spawn([process.execPath, main, "token", "client", "--data-dir", data], {
    env: { PATH: process.env["PATH"], HOME: lab.home },
    stdin: "ignore",
  });
  const token = (await asked.stdout.text()).trim();
  const print = async (prompt: string) => {
    const child = Bun.spawn([process.execPath, script, directory, prompt, url], {
      cwd: lab.home,
      env: {
        HOME: lab.home,
        POCKET_AGENT_TOKEN: token,
        NODE_EXTRA_CA_CERTS: join(data, "certs", "server.crt"),
      },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    const [code, output, errors] = await Promise.all([
      child.exited,
      child.stdout.text(),
      child.stderr.text(),
    ]);
    return { code, output, errors };
  };
  expect(await print("stream:3")).toEqual({ code: 0, output: "w0 w1 w2 \n", errors: "" });
  expect(await print("say:Indeed")).toEqual({ code: 0, output: "Indeed\n", errors: "" });
  expect(lab.conversation).toContain("w0 w1 w2 ");
  expect((await print("error:400")).errors).toContain("scripted 400");
});

/** The script as the README has it. */
async function quickstart(): Promise<string> {
  const text = await Bun.file(readme).text();
  const section = /<!-- quickstart -->(.*)<!-- \/quickstart -->/s.exec(text)?.[1] ?? "";
  const code = /```ts\n(.*?)```/s.exec(section)?.[1];
  if (!code) throw new Error("Cannot find the quickstart in the README");
  return code;
}
