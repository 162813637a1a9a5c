import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { scratch, testApp, type TestApp } from "./support/app.ts";
import { Cable } from "./support/cable.ts";
import { environmentOf, main, runCommand } from "./support/cli.ts";
import { Client } from "./support/client.ts";
import { ServerProcess } from "./support/server-process.ts";
import { Tmux } from "./support/tmux.ts";

setDefaultTimeout(60_000);

const secured = { PA_AUTH_MODE: "ssh", PA_TLS_ENABLED: "true", PA_INSECURE: "false" };

/** A project with some history, and a terminal that is attached to it. */
async function attached(
  server: TestApp,
  {
    prompt = "say:earlier",
    env = {},
    columns = 100,
  }: {
    prompt?: string;
    env?: Readonly<Record<string, string>>;
    columns?: number;
  } = {},
) {
  const client = await Client.local(server.app.controlPath);
  const project_id = await client.create(await server.directory("shop"));
  await client.run(project_id, prompt);
  await client.expect("project_joined", "project_join", { project_id, data: {} });
  const screen = attach(server.home, { env, columns });
  await screen.until(/^idle \| default \| shop$/m);
  return {
    client,
    project_id,
    screen,
    async [Symbol.asyncDispose]() {
      screen[Symbol.dispose]();
      await client[Symbol.asyncDispose]();
    },
  };
}

function attach(
  home: string,
  { env = {}, columns = 100 }: { env?: Readonly<Record<string, string>>; columns?: number } = {},
): Tmux {
  const argv = [process.execPath, main, "attach", "shop"];
  return new Tmux(argv, { home, columns, env: environmentOf(home, env) });
}

function send(screen: Tmux, prompt: string): void {
  screen.type(prompt);
  screen.keys("Enter");
}

const count = (text: string, part: string | RegExp): number => text.split(part).length - 1;
/** How far the numbers of a stream are told, in the order in which they were. */
const numbersIn = (text: string) =>
  (text.match(/\bw\d+/g) ?? []).map((word) => Number(word.slice(1)));

test("attach shows what was, streams what comes, and says by word and colour how the project is", async () => {
  await using server = await testApp(secured);
  await using at = await attached(server);
  const { screen } = at;
  expect(screen.text).toContain("> say:earlier (local)");
  expect(screen.text).toMatch(/^earlier$/m);
  expect(screen.colours).toMatch(/\^\[32m[^\n]*idle/);
  send(screen, "stream:60:25");
  await screen.until("w5 ");
  await screen.until(/^executing \| default \| shop$/m);
  expect(screen.colours).toMatch(/\^\[33m[^\n]*executing/);
  expect(screen.text).not.toContain("w59");
  await screen.until("w59");
  await screen.until(/^idle/m);
  expect(numbersIn(screen.text)).toEqual(Array.from({ length: 60 }, (_, one) => one));
});

test("a request is shown whole, and y, n and a answer it", async () => {
  await using server = await testApp(secured);
  await using at = await attached(server);
  const { screen, client } = at;
  const command = `first ${"x".repeat(300)} last`;
  send(screen, `tool:Bash:${JSON.stringify({ command, why: "a reason" })}`);
  await screen.until(/y allows, n refuses, a allows for this session: \w+\(/);
  expect(screen.text).toContain(`command: ${command}`);
  expect(screen.text).toContain("why: a reason");
  expect(screen.colours).toMatch(/\^\[31m[^\n]*needs you/);
  screen.keys("y");
  await screen.until("Allowed (local)");
  await client.next("permission_resolved", ({ data }) => data.decision === "allow");
  await screen.until("done: Bash ran");
  await screen.until(/^idle/m);
  send(screen, 'tool:Bash:{"command":"second"}');
  await screen.until(/needs you.*\n.*y allows/);
  screen.keys("n");
  await client.next("permission_resolved", ({ data }) => data.decision === "deny");
  await screen.until(/^idle/m);
  send(screen, 'tool:Bash:{"command":"third"}\ntool:Bash:{"command":"third"}');
  await screen.until(/needs you.*\n.*a allows/);
  screen.keys("a");
  // The second time nobody is asked.
  await screen.until(/^idle/m);
  expect(count(screen.text, "command: third")).toBe(1);
  expect(count(screen.text, "* Bash: third")).toBe(2);
});

test("questions are answered by number, by several, and in words of one's own", async () => {
  await using server = await testApp(secured);
  await using at = await attached(server);
  const { screen } = at;
  send(screen, "ask");
  await screen.until("1-2 answers, o own words, n refuses");
  expect(screen.text).toMatch(/\? Which colour\?\n {2}1 {2}Red - warm\n {2}2 {2}Blue - cold/);
  screen.keys("2");
  await screen.until('"Which colour?"="Blue"');
  await screen.until(/^idle/m);
  send(screen, "ask");
  await screen.until(/needs you.*\n.*o own words/);
  screen.keys("o");
  await screen.until("Enter answers, Esc goes back");
  send(screen, "dark green");
  await screen.until('"Which colour?"="dark green"');
});

test("a plan is shown and approved by key", async () => {
  await using server = await testApp(secured);
  await using at = await attached(server);
  send(at.screen, "plan:do this first");
  await at.screen.until("y allows, n refuses");
  expect(at.screen.text).toContain("do this first");
  at.screen.keys("y");
  await at.screen.until("Allowed (local)");
});

test("a key that was meant for the prompt answers nothing", async () => {
  await using server = await testApp(secured);
  await using at = await attached(server);
  const { screen, client, project_id } = at;
  const data = { prompt: 'sleep:600\ntool:Bash:{"command":"careful"}' };
  screen.type("say:yes");
  await client.expect("project_state", "execute", { project_id, data });
  await client.next("permission_request");
  // Somebody types on while the request appears.
  screen.type("yyy");
  await screen.until("y allows, n refuses");
  expect(client.received.some(({ type }) => type === "permission_resolved")).toBe(false);
  screen.keys("n");
  await screen.until("Refused (local)");
  await screen.until(/^> say:yesyyy$/m);
});

test("another device's answer takes the question away", async () => {
  await using server = await testApp(secured);
  await using at = await attached(server);
  const { screen, client, project_id } = at;
  send(screen, 'tool:Bash:{"command":"x"}');
  const { data } = await client.next("permission_request");
  await screen.until("y allows");
  const answer = { permission_id: data.permission_id, decision: "allow" };
  await client.expect("permission_resolved", "permission_response", { project_id, data: answer });
  await screen.until("done: Bash ran");
  await screen.until(/^idle[^\n]*\n> *$/m);
});

test("Tab goes through the permission modes", async () => {
  await using server = await testApp(secured);
  await using at = await attached(server);
  for (const mode of ["acceptEdits", "plan", "default"]) {
    at.screen.keys("Tab");
    await at.screen.until(new RegExp(`^idle \\| ${mode} \\| shop$`, "m"));
  }
});

test("prompts wait while one runs; Ctrl-C stops the run, and twice leaves with the terminal as it was", async () => {
  await using server = await testApp(secured);
  await using at = await attached(server);
  const { screen, client, project_id } = at;
  send(screen, "hang");
  await screen.until(/^executing/m);
  send(screen, "say:queued");
  await screen.until(/1 queued/);
  screen.keys("C-c");
  await screen.until("Stopping the run");
  await client.settled(project_id, 8);
  await screen.until(/^idle \| default \| 1 queued/m);
  send(screen, "hang");
  await screen.until(/^executing/m);
  screen.keys("C-c", "C-c");
  await screen.until("left with 0");
  await screen.until(/^icanon/m);
});

test.each(["C-c", "C-d"])("%s leaves when nothing runs", async (key) => {
  await using server = await testApp(secured);
  await using at = await attached(server);
  at.screen.keys(key);
  await at.screen.until("left with 0");
  await at.screen.until(/^icanon/m);
});

test("SIGTERM leaves with 143 and the terminal as it was", async () => {
  await using server = await testApp(secured);
  await using at = await attached(server);
  process.kill(await at.screen.pid(), "SIGTERM");
  await at.screen.until("left with 143");
  await at.screen.until(/^icanon/m);
  expect((await at.screen.written()).trimEnd()).toContain("\u001b[?2004l");
});

test("a restart of the server in the middle is caught up with, and nothing is told twice", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const settings = { ...secured, PA_TIMEOUTS_SHUTDOWN: "0s" };
  await mkdir(join(home, "shop"));
  const first = stack.use(await ServerProcess.start({ home, settings }));
  await runCommand(["run", "shop", "say:earlier"], { home });
  using screen = attach(home);
  await screen.until(/^idle/m);
  send(screen, "say:begun\nhang");
  await screen.until(/^begun$/m);
  await first.stop();
  await screen.until(/^offline/m);
  expect(screen.colours).toMatch(/\^\[90m[^\n]*offline/);
  stack.use(await ServerProcess.start({ home, settings }));
  await screen.until("Connected again");
  await screen.until("the server was stopped");
  await screen.until(/^failed \| default \| shop$/m);
  send(screen, "say:afterwards");
  await screen.until(/^afterwards$/m);
  const { text } = screen;
  for (const line of ["earlier", "begun", "afterwards"])
    expect(count(text, new RegExp(`^${line}$`, "m"))).toBe(1);
  expect(count(text, "the server was stopped")).toBe(1);
});

test("what was said while the connection was gone comes once; what was typed meanwhile is run once", async () => {
  await using server = await testApp(secured);
  using cable = await Cable.to(server.app.controlPath, server.home);
  await using at = await attached(server, { env: { PA_DATA_DIR: cable.dataDir } });
  const { screen, client, project_id } = at;
  send(screen, "stream:60:20");
  await screen.until("w5 ");
  await cable.cut();
  await screen.until(/^offline/m);
  await client.settled(project_id, 8);
  send(screen, "say:typed while away");
  await screen.until("Not connected; the prompt is sent");
  await cable.plug();
  await screen.until(/^typed while away$/m);
  await screen.until(/^idle/m);
  expect(numbersIn(screen.text)).toEqual(Array.from({ length: 60 }, (_, one) => one));
  expect(count(screen.text, /^typed while away$/m)).toBe(1);
});

test("nothing hostile reaches the terminal, neither of the agent's nor of what it asks", async () => {
  await using server = await testApp(secured);
  const hostile = "a\u001b]52;c;aGk=\u0007b\u001b[2Jc\u009b31md\u202ee\u2066f\u0008g";
  await using at = await attached(server, { prompt: `say:${hostile}` });
  const { screen, client, project_id } = at;
  const data = { prompt: `tool:Bash:${JSON.stringify({ command: hostile })}` };
  await client.expect("project_state", "execute", { project_id, data });
  await screen.until("y allows");
  screen.keys("C-r");
  await screen.until("Raw events");
  screen.keys("n");
  await screen.until('"type":"permission_resolved"');
  await screen.until("\\u202e", () => screen.text.replaceAll("\n", ""));
  const written = await screen.written();
  expect(screen.text).toContain(
    "\\x1b]52;c;aGk=\\x07b\\x1b[2Jc\\x9b31md\\u{202e}e\\u{2066}f\\x08g",
  );
  for (const raw of ["\u001b]52", "\u001b[2J", "\u009b", "\u202e", "\u2066", "\u0008", "\u0007"])
    expect(written).not.toContain(raw);
});

test("40 columns are enough, and NO_COLOR is without colours", async () => {
  await using server = await testApp(secured);
  await using at = await attached(server, { columns: 40, env: { NO_COLOR: "1" } });
  const { screen } = at;
  const long = "say:" + "some words ".repeat(12);
  send(screen, long);
  await screen.until(/^idle/m);
  await screen.until(/(some words ){12}/, () => screen.rows.join(" ").replaceAll(/\s+/g, " "));
  // Words are not torn: each row of the answer ends with a whole one.
  const rows = screen.rows.filter((row) => /^(some|words)/.test(row));
  for (const row of rows) expect(row.trimEnd()).toMatch(/(some|words)$/);
  send(screen, 'tool:Bash:{"command":"ls"}');
  await screen.until(/y allows, n refuses, a allows for this\s+session/, () =>
    screen.rows.join("\n"),
  );
  screen.keys("y");
  await screen.until(/^idle/m);
  expect((await screen.written()).replaceAll("\u001b", "^")).not.toMatch(/\^\[\d+m/);
});

test("a text that is pasted is one prompt, and what was typed can be changed and recalled", async () => {
  await using server = await testApp(secured);
  await using at = await attached(server);
  const { screen, client } = at;
  screen.paste("say:one\nsay:two");
  await screen.until("> say:one\\nsay:two");
  screen.keys("Enter");
  const { data } = await client.next("user_message", (frame) => frame.data.prompt.includes("two"));
  expect(data.prompt).toBe("say:one\nsay:two");
  await screen.until(/^two$/m);
  screen.type("say:wring");
  screen.keys("Left", "Left", "BSpace", "o");
  await screen.until("> say:wrong");
  screen.keys("C-u", "C-e", "C-w");
  await screen.until(/^> *$/m);
  screen.keys("Up");
  await screen.until("> say:one\\nsay:two");
});

test("attach without a terminal says what needs none", async () => {
  await using server = await testApp(secured);
  const { code, err } = await runCommand(["attach", "shop"], { home: server.home });
  expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining("logs --follow") });
});
