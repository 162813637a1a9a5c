import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { scratch, testApp } from "./support/app.ts";
import { Cable } from "./support/cable.ts";
import { environmentOf, main, Reader, runCommand, spawnCommand } from "./support/cli.ts";
import { Client } from "./support/client.ts";
import { ServerProcess } from "./support/server-process.ts";
import { Tmux } from "./support/tmux.ts";

setDefaultTimeout(60_000);

const secured = { PA_AUTH_MODE: "ssh", PA_TLS_ENABLED: "true", PA_INSECURE: "false" };
/** Everything that can steer a terminal, or deceive whoever reads it. */
const hostile = "a\u001b]52;c;aGk=\u0007b\u001b[2Jc\u009b31md\u202ee\u2066f\rg\u0008h\u200bi";
const steering = /(?!\n)[\p{C}\u2028\u2029]/u;

test("run prints the answer, exits 0, and goes on in the same project the next time", async () => {
  await using server = await testApp(secured);
  const { home } = server;
  const path = await server.directory("a project");
  const first = await runCommand(["run", path, "stream:5"], { home });
  expect(first).toEqual({ code: 0, out: "w0 w1 w2 w3 w4 \n", err: "" });
  const input = "say:two\nsay:three\n";
  const second = await runCommand(["run", path, "-"], { home, input });
  expect(second).toEqual({ code: 0, out: "two\nthree\n", err: "" });
  const { out } = await runCommand(["projects", "--json"], { home });
  expect(JSON.parse(out).projects).toMatchObject([{ path, usage: { runs: 2 } }]);
});

test("run exits with 1 and the reason when the run fails, and keeps it out of the answer", async () => {
  await using server = await testApp(secured);
  const { home } = server;
  const path = await server.directory();
  const failed = await runCommand(["run", path, "say:before\nnoresult"], { home });
  expect(failed).toMatchObject({ code: 1, out: "before\n" });
  expect(failed.err).toContain("Cannot finish the run");
  const nowhere = await runCommand(["run", join(home, "missing"), "x"], { home });
  expect(nowhere).toMatchObject({ code: 1, out: "", err: expect.stringContaining("Cannot") });
});

test("run without a server says so, and what to do", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const { code, out, err } = await runCommand(["run", ".", "x"], { home });
  expect({ code, out }).toEqual({ code: 1, out: "" });
  expect(err).toMatch(/^Cannot reach a server: none is running.*serve/);
});

test.each([
  [["run"]],
  [["run", ".", "x", "y"]],
  [["run", ".", "x", "--permission-mode", "careless"]],
  [["run", ".", "x", "--fingerprint", "SHA256:x"]],
  [["run", "relative", "x", "--url", "wss://localhost:1"]],
  [["attach"]],
  [["logs"]],
])("%j is a wrong call", async (argv) => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const { code, out, err } = await runCommand(argv, { home });
  expect({ code, out }).toEqual({ code: 2, out: "" });
  expect(err).toMatch(/^Cannot .+/);
});

test("run --json prints every event of the run, numbered without a gap, with its options", async () => {
  await using server = await testApp(secured);
  const { home } = server;
  const path = await server.directory();
  const argv = ["run", path, "stream:3", "--json", "--model", "opus", "--permission-mode", "plan"];
  const { code, out } = await runCommand(argv, { home });
  const events = out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(code).toBe(0);
  expect(events[0]).toMatchObject({
    type: "user_message",
    data: { options: { model: "opus", permission_mode: "plan" } },
  });
  const seqs = events.flatMap(({ seq }) => (seq === undefined ? [] : [seq]));
  expect(seqs).toEqual(Array.from(seqs, (_, at) => seqs[0] + at));
  expect(events.filter(({ data }) => data.type === "stream_event").length).toBeGreaterThan(3);
  expect(events.at(-1)).toMatchObject({ type: "project_state", data: { state: "IDLE" } });
});

test("run --new-session begins a new conversation", async () => {
  await using server = await testApp(secured);
  const { home } = server;
  const path = await server.directory();
  const sessionOf = async (...flags: string[]) => {
    const { out } = await runCommand(["run", path, "say:x", "--json", ...flags], { home });
    return JSON.parse(out.trim().split("\n").at(-1) ?? "").data.session_id;
  };
  const first = await sessionOf();
  expect(await sessionOf()).toBe(first);
  expect(await sessionOf("--new-session")).not.toBe(first);
});

test("run without a terminal says what it waits for, and goes on when another device answers", async () => {
  await using server = await testApp(secured);
  const { home } = server;
  const path = await server.directory();
  const child = spawnCommand(["run", path, 'tool:Bash:{"command":"make it"}'], { home });
  const [out, err] = [new Reader(child.stdout), new Reader(child.stderr)];
  await err.until("Waiting for an answer");
  expect(err.text).toContain("command: make it");
  await using other = await Client.local(server.app.controlPath);
  const { data } = await other.expect("project_list_response", "project_list");
  const project_id = data.projects[0]?.id ?? "";
  const joined = await other.expect("project_joined", "project_join", { project_id, data: {} });
  const permission_id = joined.data.permissions[0]?.permission_id;
  const answer = { permission_id, decision: "allow" };
  await other.expect("permission_resolved", "permission_response", { project_id, data: answer });
  expect(await child.exited).toBe(0);
  expect(await out.all()).toContain("done: Bash ran");
});

test("run asks on a terminal, where y allows, n refuses, and a key pressed too early does nothing", async () => {
  await using server = await testApp(secured);
  const { home } = server;
  const path = await server.directory();
  const argv = [process.execPath, main, "run", path, 'tool:Bash:{"command":"ls"}'];
  {
    using screen = new Tmux(argv, { home, env: environmentOf(home) });
    await screen.until("command: ls");
    await screen.until("y allows, n refuses");
    screen.keys("y");
    await screen.until("done: Bash ran");
    await screen.until("left with 0");
    await screen.until(/^icanon/m);
  }
  using screen = new Tmux(argv, { home, env: environmentOf(home) });
  // Before anything is asked, this is meant for nobody.
  screen.keys("y");
  await screen.until("y allows, n refuses");
  expect(screen.text).not.toContain("Allowed");
  screen.keys("n");
  await screen.until("Refused (local)");
  await screen.until("left with 0");
});

test("Ctrl-C stops the run and run exits with 130", async () => {
  await using server = await testApp(secured);
  const { home } = server;
  const path = await server.directory();
  const child = spawnCommand(["run", path, "say:begun\nhang"], { home });
  const err = new Reader(child.stderr);
  await new Reader(child.stdout).until("begun");
  child.kill("SIGINT");
  expect(await child.exited).toBe(130);
  expect(await err.all()).toContain("Stopping the run");
  const { out } = await runCommand(["projects", "--json"], { home });
  expect(JSON.parse(out).projects).toMatchObject([{ state: "IDLE", usage: { runs: 1 } }]);
});

test("SIGTERM ends run with 143, and the run goes on", async () => {
  await using server = await testApp(secured);
  const { home } = server;
  const path = await server.directory();
  const child = spawnCommand(["run", path, "say:begun\nhang"], { home });
  await new Reader(child.stdout).until("begun");
  child.kill("SIGTERM");
  expect(await child.exited).toBe(143);
  const { out } = await runCommand(["projects", "--json"], { home });
  expect(JSON.parse(out).projects).toMatchObject([{ state: "EXECUTING" }]);
});

test("run is refused while another runs; with --queue it waits its turn, and can be taken back", async () => {
  await using server = await testApp(secured);
  const { home } = server;
  const path = await server.directory();
  const first = spawnCommand(["run", path, "say:begun\nhang"], { home });
  await new Reader(first.stdout).until("begun");
  const refused = await runCommand(["run", path, "say:x"], { home });
  expect(refused).toMatchObject({ code: 1, err: expect.stringContaining("--queue") });
  const taken = spawnCommand(["run", path, "say:never", "--queue"], { home });
  const waiting = spawnCommand(["run", path, "say:my turn", "--queue"], { home });
  await new Reader(taken.stderr).until("Waits its turn");
  await new Reader(waiting.stderr).until("Waits its turn");
  taken.kill("SIGINT");
  expect(await taken.exited).toBe(130);
  first.kill("SIGINT");
  expect(await first.exited).toBe(130);
  // After a kill the queue waits until somebody has looked.
  const last = await runCommand(["run", path, "say:last"], { home });
  expect(last).toMatchObject({ code: 0, out: "last\n" });
  expect(await waiting.exited).toBe(0);
  expect(await waiting.stdout.text()).toBe("my turn\n");
});

test("a connection that is lost again and again in the middle neither doubles nor loses a word", async () => {
  await using server = await testApp(secured);
  const { home } = server;
  using cable = await Cable.to(server.app.controlPath, home);
  const path = await server.directory();
  const prompt = "stream:40:20\nstream:40:20\nstream:40:20";
  const env = { PA_DATA_DIR: cable.dataDir };
  const child = spawnCommand(["run", path, prompt], { home, env });
  const [out, err] = [new Reader(child.stdout), new Reader(child.stderr)];
  const numbers = Array.from({ length: 40 }, (_, at) => `w${at} `).join("");
  for (const [at, moment] of ["w7 ", `${numbers}\nw0 w1 w2 w3 `].entries()) {
    await out.until(moment);
    await cable.cut();
    await err.until("Connection lost");
    await cable.plug();
    const until = () => err.text.split("Connected again").length > at + 1;
    while (!until()) await Bun.sleep(20);
  }
  expect(await child.exited).toBe(0);
  expect(await out.all()).toBe(`${numbers}\n`.repeat(3));
});

test("a prompt whose answer was lost is not run twice", async () => {
  await using server = await testApp(secured);
  const { home } = server;
  using cable = await Cable.to(server.app.controlPath, home);
  cable.breaksAt = '"type":"user_message"';
  const path = await server.directory();
  const env = { PA_DATA_DIR: cable.dataDir };
  const result = await runCommand(["run", path, "say:one\nsleep:1500\nsay:two"], { home, env });
  expect(result).toMatchObject({ code: 0, out: "one\ntwo\n" });
  expect(result.err).toContain("Connected again");
  const { out: list } = await runCommand(["projects", "--json"], { home });
  expect(JSON.parse(list).projects).toMatchObject([{ usage: { runs: 1 } }]);
});

test("run outlives a restart of the server, and tells how the run ended", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const settings = { ...secured, PA_TIMEOUTS_SHUTDOWN: "0s" };
  const path = join(home, "work");
  await mkdir(path);
  const first = stack.use(await ServerProcess.start({ home, settings }));
  const child = spawnCommand(["run", path, "say:begun\nhang"], { home });
  const [out, err] = [new Reader(child.stdout), new Reader(child.stderr)];
  await out.until("begun");
  await first.stop();
  await err.until("Connection lost");
  stack.use(await ServerProcess.start({ home, settings }));
  expect(await child.exited).toBe(1);
  expect(await err.all()).toContain("Cannot finish the run: the server was stopped");
  expect(await out.all()).toBe("begun\n");
});

test("nothing that an agent says reaches the terminal as it is", async () => {
  await using server = await testApp(secured);
  const { home } = server;
  const path = await server.directory();
  const tool = `tool:Bash:${JSON.stringify({ command: hostile })}`;
  const input = `say:${hostile}\nerror:${hostile}`;
  const said = await runCommand(["run", path, "-"], { home, input });
  const asked = spawnCommand(["run", path, tool], { home });
  const err = new Reader(asked.stderr);
  await err.until("Waiting for an answer");
  asked.kill("SIGINT");
  await asked.exited;
  const told = await runCommand(["logs", path], { home });
  const events = await runCommand(["logs", path, "--json"], { home });
  for (const text of [said.out, said.err, err.text, told.out, events.out])
    expect(steering.exec(text)).toBeNull();
  expect(said.out).toContain("a\\x1b]52;c;aGk=\\x07b\\x1b[2Jc\\x9b31md\\u{202e}e\\u{2066}f");
  expect(err.text).toContain("\\x1b]52;c;aGk=\\x07");
  // To a program the events say the same.
  expect(
    events.out
      .split("\n")
      .some((line) => line && JSON.stringify(JSON.parse(line)).includes("\u202e")),
  ).toBe(true);
});

test("the local server is found where its folder has a blank in its name", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const env = { PA_DATA_DIR: join(home, "Application Support") };
  stack.use(await ServerProcess.start({ home, settings: { ...secured, ...env } }));
  await mkdir(join(home, "work"));
  const result = await runCommand(["run", "work", "say:here"], { home, env });
  expect(result).toEqual({ code: 0, out: "here\n", err: "" });
});
