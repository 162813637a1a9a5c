import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { createLogger } from "../src/adapters/logger.ts";
import type { Config } from "../src/contract/options.ts";
import { open, scratch } from "./support/app.ts";
import { Client } from "./support/client.ts";
import { spawnServer } from "./support/server-process.ts";

setDefaultTimeout(60_000);

type Log = ReturnType<typeof createLogger>;

/** What is in the log file after `write`, as text. */
async function logged(write: (log: Log) => void, settings: Partial<Config> = {}): Promise<string> {
  await using stack = new AsyncDisposableStack();
  const logOutput = join(await scratch(stack), "logs", "server.log");
  const defaults = { logLevel: "debug", logFormat: "json", logRotationSize: 1e9 } as const;
  write(createLogger({ ...defaults, logOutput, ...settings }));
  return readFileSync(logOutput, "utf8");
}

/** Every character that could forge, hide or reorder text on a terminal. */
const deceptive = [
  "\n\r\t\0\u001b[31m",
  "\u007f\u0085\u009b31m",
  "\u061c\u200e\u200f",
  "\u2028\u2029\u202a\u202e",
  "\u2066\u2069\ufeff",
  "\ud800 lone",
  "\udfff",
].join("");
const unescaped = /[\p{Cc}\p{Cs}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/u;

test("a line is one JSON object with timestamp, level and msg, and further fields flat", async () => {
  const text = await logged((log) => {
    log("info", "listening", { port: 1, correlation_id: "r1" });
    log("warn", "no fields");
  });
  const lines = text.trimEnd().split("\n");
  expect(lines).toHaveLength(2);
  const [first, second] = lines.map((line) => JSON.parse(line));
  expect(first).toEqual({
    timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
    level: "info",
    msg: "listening",
    port: 1,
    correlation_id: "r1",
  });
  expect(second).toMatchObject({ level: "warn", msg: "no fields" });
});

test("an error is logged with its message, stack and cause", async () => {
  const error = new Error("outer", { cause: new Error("inner") });
  const line = JSON.parse(await logged((log) => log("error", "it failed", { error })));
  expect(line.error).toMatchObject({ type: "Error", message: expect.stringContaining("outer") });
  expect(line.error.stack).toContain("inner");
});

describe.each(["json", "text"] as const)("in the format %s", (logFormat) => {
  test("control, bidi and line-separating characters and lone surrogates are escaped", async () => {
    const text = await logged(
      (log) => {
        log("info", "one", { value: deceptive });
        log("info", `two ${deceptive}`, { nested: { list: [deceptive] } });
      },
      { logFormat },
    );
    expect(unescaped.exec(text.replaceAll("\n", ""))).toBeNull();
    expect(text.split("\n")).toHaveLength(3);
    for (const escaped of ["\\n", "\\u001b", "\\u009b", "\\u202e", "\\u2028", "\\ufeff", "\\ud800"])
      expect(text.split(escaped)).toHaveLength(4);
  });

  test("what is escaped is not lost", async () => {
    const value = `${deceptive} 😀 日本語 "quoted" \\ back`;
    const text = await logged((log) => log("info", "it", { value }), { logFormat });
    const json = logFormat === "json" ? text : `{"value":${text.slice(text.indexOf("=") + 1)}}`;
    expect(JSON.parse(json).value).toBe(value);
    expect(text).toContain("😀 日本語");
  });

  test("lines below logging.level are left out", async () => {
    const levels = ["debug", "info", "warn", "error"] as const;
    for (const [at, logLevel] of levels.entries()) {
      const write = (log: Log) => levels.forEach((level) => log(level, `a ${level} line`));
      const text = await logged(write, { logFormat, logLevel });
      const written = text.trimEnd().split("\n");
      expect(written).toHaveLength(levels.length - at);
      for (const level of levels.slice(at)) expect(text).toContain(`a ${level} line`);
    }
  });
});

describe("a line of text is for a person", () => {
  const time = String.raw`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}`;

  test("with the time here, level, message, and then the fields that say something", async () => {
    const fields = {
      project_id: "7194c1de-3a5f-4d3e-9a61-0f1e2d3c4b5a",
      reason: "disk is full",
      path: "/a/b-c.d",
      free: 0,
      code: null,
      exit_code: undefined,
    };
    const text = await logged((log) => log("warn", "it failed", fields), { logFormat: "text" });
    const said = 'it failed project_id=7194c1de reason="disk is full" path=/a/b-c.d free=0';
    expect(text).toMatch(new RegExp(`^${time} warn {2}${said}\n$`));
  });

  test("with one line for an error, whatever it says", async () => {
    const error = new Error("outer\n\u001b[31mred", { cause: new Error("inner\r\n2026 info") });
    const text = await logged((log) => log("error", "it failed", { error }), { logFormat: "text" });
    expect(text.split("\n")).toHaveLength(2);
    expect(unescaped.exec(text.replaceAll("\n", ""))).toBeNull();
    expect(text).toContain("outer\\n\\u001b[31mred");
    expect(text).toContain("inner");
    expect(text).toContain("logger.test.ts");
  });

  test.each([
    ["a terminal", {}, true],
    ["a terminal with NO_COLOR", { NO_COLOR: "1" }, false],
  ])("with colours on %s: %p %p", async (_, env, coloured) => {
    await using stack = new AsyncDisposableStack();
    const home = await scratch(stack);
    const command = `${process.execPath} ${join(import.meta.dir, "..", "src", "main.ts")}`;
    const child = Bun.spawn(["script", "-qefc", command, "/dev/null"], {
      env: {
        PATH: process.env["PATH"],
        HOME: home,
        ...open,
        ...env,
        PA_DATA_DIR: join(home, "data"),
        PA_SERVER_PORT: "0",
        PA_LOG_FORMAT: "text",
      },
      stdin: "ignore",
      stdout: "pipe",
    });
    stack.defer(() => child.kill("SIGTERM"));
    let text = "";
    for await (const chunk of child.stdout) {
      text += new TextDecoder().decode(chunk);
      if (text.includes("listening")) break;
    }
    const line = coloured ? "\u001b[36minfo \u001b[0m listening" : "info  listening";
    expect(text).toContain(line);
    expect(text.includes("\u001b[")).toBe(coloured);
  });
});

test("a log file is its owner's alone, and is appended to", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = join(await scratch(stack), "logs");
  const settings = {
    logLevel: "info",
    logFormat: "json",
    logOutput: join(folder, "a.log"),
    logRotationSize: 1e9,
  } as const;
  createLogger(settings)("info", "first");
  createLogger(settings)("info", "second");
  expect(readFileSync(settings.logOutput, "utf8").trimEnd().split("\n")).toHaveLength(2);
  expect(statSync(settings.logOutput).mode & 0o777).toBe(0o600);
  expect(statSync(folder).mode & 0o777).toBe(0o700);
});

test("a file that is full makes room, and five of those are kept", async () => {
  await using stack = new AsyncDisposableStack();
  const folder = await scratch(stack);
  const logOutput = join(folder, "a.log");
  const log = createLogger({
    logLevel: "info",
    logFormat: "json",
    logOutput,
    logRotationSize: 1024,
  });
  for (let count = 0; count < 100; count += 1) log("info", "line", { count });
  const names = readdirSync(folder).toSorted();
  expect(names).toEqual(["a.log", "a.log.1", "a.log.2", "a.log.3", "a.log.4", "a.log.5"]);
  const lines = names
    .toSorted((a, b) => Number(b.slice(6)) - Number(a.slice(6)))
    .flatMap((name) => readFileSync(join(folder, name), "utf8").trimEnd().split("\n"));
  const counts = lines.map((line) => JSON.parse(line).count);
  expect(counts).toEqual(counts.map((_, at) => counts[0] + at));
  expect(counts.at(-1)).toBe(99);
  for (const name of names) {
    expect(statSync(join(folder, name)).size).toBeLessThanOrEqual(1024);
    expect(statSync(join(folder, name)).mode & 0o777).toBe(0o600);
  }
});

test("no prompt and no path is in any log line at level debug; ids and lengths are", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const secret = "canary-5d1f";
  const server = spawnServer({ home, settings: { PA_LOG_LEVEL: "debug" } });
  stack.defer(() => server.kill("SIGKILL"));
  const output = new Response(server.stderr).text();
  const { url, rest } = await firstUrl(server.stdout);
  const client = stack.use(await Client.connect(url));
  const path = join(home, "work", secret);
  await Bun.write(join(path, "file"), "");
  const project_id = await client.create(path);
  for (const prompt of [`say:${secret}`, `exit1:${secret}`, `junk:${secret}`, "noresult"]) {
    const data = { prompt: `${prompt}\nstderr:100`, options: { append_system_prompt: secret } };
    await client.expect("project_state", "execute", { project_id, data });
    await client.settled(project_id);
  }
  await client.ask("project_create", { data: { path: `/nowhere/${secret}` } });
  await client.ask("project_create", { data: { path: join(path, "inner") } });
  await client.ask("project_create", { data: { [secret]: 1 } });
  await client.ask("execute", { project_id: crypto.randomUUID(), data: { prompt: secret } });
  client.socket.send(secret);
  client.socket.send(JSON.stringify({ type: secret, data: { [secret]: secret } }));
  await client.expect("project_state", "execute", { project_id, data: { prompt: "hang" } });
  await client.expect("project_state", "agent_kill", { project_id });
  await client.expect("project_deleted", "project_delete", { project_id });
  process.kill(server.pid, "SIGTERM");
  const log = (await rest) + (await output);
  expect(await server.exited).toBe(0);

  expect(log.split("\n").filter((line) => line.includes(secret))).toEqual([]);
  const lines = log
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(lines.map(({ level }) => level)).toContain("debug");
  const started = lines.find(({ msg }) => msg === "execution started");
  expect(started).toMatchObject({
    project_id,
    execution_id: expect.any(String),
    prompt_length: `say:${secret}\nstderr:100`.length,
  });
  expect(lines.map(({ correlation_id }) => correlation_id)).toContain("r1");
});

/** The address that the server says it listens on, and all it says until it ends. */
async function firstUrl(stdout: ReadableStream<Uint8Array>) {
  const found = Promise.withResolvers<URL>();
  const rest = (async () => {
    const decoder = new TextDecoder();
    let text = "";
    for await (const chunk of stdout) {
      text += decoder.decode(chunk, { stream: true });
      const line = text.split("\n").find((one) => one.includes('"listening"'));
      const [, url] = /"url":"([^"]+)"/.exec(line ?? "") ?? [];
      if (url) found.resolve(new URL(url));
    }
    found.reject(new Error(`The server did not listen: ${text}`));
    return text;
  })();
  return { url: await found.promise, rest };
}
