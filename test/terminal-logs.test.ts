import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { scratch, testApp } from "./support/app.ts";
import { environmentOf, main, Reader, runCommand, spawnCommand } from "./support/cli.ts";
import { Client } from "./support/client.ts";
import { ServerProcess } from "./support/server-process.ts";

setDefaultTimeout(60_000);

const secured = { PA_AUTH_MODE: "ssh", PA_TLS_ENABLED: "true", PA_INSECURE: "false" };

test("logs --json prints every record of many pages once, in order, as the server has it", async () => {
  await using server = await testApp(secured);
  await using client = await Client.local(server.app.controlPath);
  const project_id = await client.create(await server.directory("many"));
  await client.run(project_id, "flood:2500:10");
  const { code, out } = await runCommand(["logs", "many", "--json"], { home: server.home });
  const records = out
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(code).toBe(0);
  expect(records.map(({ seq }) => seq)).toEqual(Array.from(records, (_, at) => at + 1));
  const { data } = await client.expect("messages_response", "get_messages", {
    project_id,
    data: { after_seq: 0, limit: 50 },
  });
  expect(records.slice(0, data.messages.length)).toEqual(data.messages);
  expect(records.length).toBeGreaterThan(2500);
});

test("logs prints what was asked and said in words, by name, path and id", async () => {
  await using server = await testApp(secured);
  await using client = await Client.local(server.app.controlPath);
  const path = await server.directory("worded");
  const id = await client.create(path);
  await client.run(id, "say:an answer\nsay:another");
  const { home } = server;
  const named = await runCommand(["logs", "worded"], { home });
  expect(named.out).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  > say:an answer$/m);
  expect(named.out).toMatch(/ {2}an answer$/m);
  for (const name of [path, id, id.slice(0, 8)])
    expect(await runCommand(["logs", name], { home })).toEqual(named);
  const missing = await runCommand(["logs", "other"], { home });
  expect(missing).toMatchObject({ code: 1, err: expect.stringContaining("projects list") });
  await mkdir(join(home, "work", "deep"), { recursive: true });
  await client.create(await server.directory(join("deep", "worded")));
  const ambiguous = await runCommand(["logs", "worded"], { home });
  expect(ambiguous).toMatchObject({ code: 1, err: expect.stringContaining("2 are called that") });
});

test("logs ends quietly with 0 when whoever reads it has enough", async () => {
  await using server = await testApp(secured);
  await using client = await Client.local(server.app.controlPath);
  await client.run(await client.create(await server.directory("many")), "flood:2500:2000");
  const script = `'${process.execPath}' '${main}' logs many | head -n 1; echo "\${PIPESTATUS[0]}"`;
  const child = Bun.spawn(["bash", "-c", script], {
    env: environmentOf(server.home),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, err] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  expect(out.trim().split("\n")).toHaveLength(2);
  expect({ last: out.trim().at(-1), err }).toEqual({ last: "0", err: "" });
});

test("logs --follow goes on across a restart of the server, with nothing twice and nothing missed", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const path = join(home, "work");
  await mkdir(path);
  const first = stack.use(await ServerProcess.start({ home, settings: secured }));
  await runCommand(["run", path, "say:one"], { home });
  const child = spawnCommand(["logs", "work", "--follow", "--json"], { home });
  stack.defer(() => child.kill());
  const [out, err] = [new Reader(child.stdout), new Reader(child.stderr)];
  await out.until('"text":"one"');
  await runCommand(["run", path, "say:two"], { home });
  await out.until('"text":"two"');
  await first.stop();
  await err.until("Connection lost");
  stack.use(await ServerProcess.start({ home, settings: secured }));
  const third = await runCommand(["run", path, "say:three"], { home });
  expect(third.code).toBe(0);
  await out.until('"text":"three"');
  const whole = await runCommand(["logs", "work", "--json"], { home });
  const [last = ""] = whole.out.trimEnd().split("\n").slice(-1);
  await out.until(last);
  expect(out.text).toBe(whole.out);
});
