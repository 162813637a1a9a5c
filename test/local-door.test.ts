import { expect, setDefaultTimeout, test } from "bun:test";
import { statSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { controlPath } from "../src/adapters/control-path.ts";
import { scratch, testApp } from "./support/app.ts";
import { Client } from "./support/client.ts";
import { ServerProcess } from "./support/server-process.ts";

setDefaultTimeout(60_000);

const secured = { PA_AUTH_MODE: "ssh", PA_TLS_ENABLED: "true", PA_INSECURE: "false" };

test("the local socket takes its owner as a client of scope full, without a login", async () => {
  await using server = await testApp(secured);
  await using client = await Client.local(server.app.controlPath);
  expect(client.received[0]?.data).toMatchObject({ auth: { required: false } });
  const project = await client.create(await server.directory());
  await client.run(project, "say:hello");
  const prompt = client.events(project).find(({ type }) => type === "user_message");
  expect(prompt?.data).toMatchObject({ device: { id: "local", name: "local" } });
  const audit = await Bun.file(join(server.dataDir, "audit.jsonl")).text();
  expect(audit).toContain('"event":"login","device":"local"');
  expect(statSync(server.app.controlPath.replace(/sock$/, "ws")).mode & 0o777).toBe(0o600);
});

test("several clients of the local socket get each its own answers", async () => {
  await using server = await testApp(secured);
  const path = server.app.controlPath;
  await using first = await Client.local(path);
  {
    await using second = await Client.local(path);
    await Promise.all([first.expect("pong", "ping"), second.expect("pong", "ping")]);
  }
  await first.expect("pong", "ping");
});

test("what waits in the queue for the local owner is still run after a restart", async () => {
  await using first = await testApp(secured);
  let project = "";
  {
    await using client = await Client.local(first.app.controlPath);
    project = await client.create(await first.directory());
    await client.expect("project_state", "execute", {
      project_id: project,
      data: { prompt: "hang" },
    });
    const data = { prompt: "say:later", queue: true };
    await client.expect("execution_queued", "execute", { project_id: project, data });
    await first.app[Symbol.asyncDispose]();
  }
  await using second = await testApp(secured, { home: first.home });
  await using client = await Client.local(second.app.controlPath);
  await client.expect("project_joined", "project_join", { project_id: project, data: {} });
  await client.ask("agent_kill", { project_id: project });
  const { data } = await client.next("user_message");
  expect(data).toMatchObject({ prompt: "say:later", device: { id: "local" } });
});

test("a client of the local socket that reads slowly gets all of it, as every other does", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  stack.use(await ServerProcess.start({ home, settings: secured }));
  const path = controlPath(join(home, "data"), {});
  await using client = await Client.local(path);
  await mkdir(join(home, "work"));
  const project = await client.create(join(home, "work"));
  await client.run(project, "flood:3000:4000");
  await using reader = await Client.local(path);
  const asked = reader.ask("project_join", { project_id: project, data: { after_seq: 0 } });
  // Nothing is read of twelve megabytes while this process does nothing else.
  const until = performance.now() + 300;
  while (performance.now() < until);
  await asked;
  await reader.next("caught_up");
  const seqs = reader.events(project).map(({ seq }) => seq);
  expect(seqs).toEqual(Array.from(seqs, (_, at) => at + 1));
  expect(seqs.length).toBeGreaterThan(3000);
});

test("an agent does not become a client, neither by the local socket nor past it", async () => {
  await using server = await testApp(secured);
  const path = controlPath(server.dataDir, {});
  const marked = { POCKET_AGENT_RUN: crypto.randomUUID() };
  expect(await attempt(path, {})).toBe("in\n");
  expect(await attempt(path, marked)).toBe("out\n");
  expect(await attempt(path.replace(/sock$/, "ws"), marked)).toBe("out\n");
  expect(await attempt(path.replace(/sock$/, "ws"), {})).toBe("out\n");
  const audit = await Bun.file(join(server.dataDir, "audit.jsonl")).text();
  expect(audit).toContain('"event":"refusal"');
});

test("a request that begins like a client's and comes in pieces is understood", async () => {
  await using server = await testApp(secured);
  const path = controlPath(server.dataDir, {});
  const socket = connect(path);
  const { promise, resolve } = Promise.withResolvers<string>();
  let answer = "";
  socket.on("data", (chunk) => {
    answer += chunk.toString("latin1");
    if (answer.includes("\r\n\r\n")) resolve(answer);
  });
  const head = [
    "GET /ws HTTP/1.1",
    "Host: localhost",
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "",
    "",
  ].join("\r\n");
  for (const piece of head.match(/.{1,7}/gs) ?? [])
    await new Promise((written) => socket.write(piece, written));
  expect(await promise).toStartWith("HTTP/1.1 101");
  socket.destroy();
});

/** Lets a program with this environment try to become a client, and gives what came of it. */
function attempt(socket: string, env: Record<string, string>): Promise<string> {
  const script = `
    const ws = new WebSocket("ws+unix://${socket}:/ws");
    ws.onmessage = () => (console.log("in"), process.exit());
    ws.onclose = () => (console.log("out"), process.exit());`;
  const child = Bun.spawn([process.execPath, "-e", script], {
    env: { PATH: process.env["PATH"], ...env },
    stdout: "pipe",
  });
  return child.stdout.text();
}
