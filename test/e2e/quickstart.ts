import { expect, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { Lab } from "./lab.ts";

const readme = join(import.meta.dir, "../../README.md");

test("the README's script prints the tokens, and its second run continues the conversation", async () => {
  await using lab = await Lab.start();
  const script = join(lab.home, "client.ts");
  const directory = join(lab.home, "work");
  const source = await quickstart();
  expect(source.trim().split("\n").length).toBeLessThanOrEqual(20);
  await Bun.write(script, source);
  await mkdir(directory);
  const url = new URL("/ws", lab.server.url.href.replace("http", "ws")).href;
  const print = async (prompt: string) => {
    const child = Bun.spawn([process.execPath, script, directory, prompt, url], {
      cwd: lab.home,
      env: { HOME: lab.home },
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
