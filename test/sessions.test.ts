import { afterAll, beforeEach, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sessionBook } from "../src/adapters/claude/sessions.ts";

const scratch = realpathSync(mkdtempSync(join(tmpdir(), "sessions-")));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

let home = "";
let project = "";
beforeEach(() => {
  home = mkdtempSync(join(scratch, "home-"));
  project = join(home, "work", "my.app");
  mkdirSync(project, { recursive: true });
});

const book = () => sessionBook({ HOME: home });
const keyOf = (path: string) => path.replaceAll(/[^a-zA-Z0-9]/g, "-");

/** Writes a transcript, newer by so many seconds than 2026 began. */
function transcript(
  lines: readonly (object | string)[],
  at = 0,
  id: string = crypto.randomUUID(),
): string {
  const folder = join(home, ".claude", "projects", keyOf(project));
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${id}.jsonl`);
  const text = lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line)));
  writeFileSync(path, `${text.join("\n")}\n`);
  const time = new Date(Date.UTC(2026, 0, 1, 0, 0, at));
  utimesSync(path, time, time);
  return id;
}
const said = (type: "user" | "assistant", text: string, rest: object = {}) => ({
  message: { role: type, content: [{ type: "text", text }] },
  type,
  cwd: project,
  isSidechain: false,
  ...rest,
});

/** When a process began, as its terminal's record says it. */
async function startOf(pid: number): Promise<string | undefined> {
  const stat = await Bun.file(`/proc/${pid}/stat`).text();
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
}

test("sessions are listed newest first, with title, first prompt, time and count", async () => {
  const old = transcript([said("user", "first  one\nplease"), said("assistant", "yes")], 1);
  const young = transcript(
    [said("user", "second"), { type: "ai-title", aiTitle: "A title" }, said("assistant", "ok")],
    2,
  );
  expect(await book().list(project, 10)).toEqual([
    {
      session_id: young,
      title: "A title",
      first_prompt: "second",
      updated_at: "2026-01-01T00:00:02.000Z",
      messages: 2,
      open_in_terminal: false,
    },
    {
      session_id: old,
      title: "first one please",
      first_prompt: "first  one\nplease",
      updated_at: "2026-01-01T00:00:01.000Z",
      messages: 2,
      open_in_terminal: false,
    },
  ]);
  expect(await book().list(project, 1)).toMatchObject([{ session_id: young }]);
});

test("a title given by hand comes before one that was made, and that before the prompts", async () => {
  transcript([
    said("user", "prompt"),
    { type: "last-prompt", lastPrompt: "last" },
    { type: "ai-title", aiTitle: "made" },
    { type: "custom-title", customTitle: "by hand" },
  ]);
  expect(await book().list(project, 1)).toMatchObject([{ title: "by hand" }]);
});

test("what is no session of this directory is left out", async () => {
  transcript([said("user", "of another", { cwd: `${project}-else` })]);
  transcript([said("user", "of a helper", { isSidechain: true })]);
  transcript([{ type: "mode", mode: "normal" }]);
  transcript([said("user", "<command-name>/clear</command-name>")]);
  transcript(["", "no JSON", '{"type":']);
  const mine = transcript(["damaged {", said("user", "mine")]);
  transcript([said("user", "not an id")], 0, "notes");
  expect((await book().list(project, 10)).map(({ session_id }) => session_id)).toEqual([mine]);
});

test("a session is found by its id, and only in its own directory", async () => {
  const id = transcript([said("user", "mine")]);
  expect(await book().find(project, id)).toMatchObject({ session_id: id });
  expect(await book().find(project, crypto.randomUUID())).toBeUndefined();
  const other = join(home, "work", "other");
  mkdirSync(other);
  expect(await book().find(other, id)).toBeUndefined();
});

test("messages are counted by the type of the line, not by what stands inside of it", async () => {
  transcript([
    said("user", 'she wrote "type":"user" and {"type":"assistant"}'),
    { type: "attachment", nested: { type: "user" }, list: [{ type: "assistant" }] },
    said("assistant", "x".repeat(300_000)),
    { type: "system", subtype: "turn_duration" },
  ]);
  expect(await book().list(project, 1)).toMatchObject([{ messages: 2 }]);
});

test("a session is open in a terminal while the process that says so lives", async () => {
  const [open, gone, ours] = ["open", "gone", "ours"].map((text) =>
    transcript([said("user", text)]),
  );
  const folder = join(home, ".claude", "sessions");
  mkdirSync(folder, { recursive: true });
  const record = (pid: number, sessionId: string | undefined, rest: object) =>
    writeFileSync(join(folder, `${pid}.json`), JSON.stringify({ pid, sessionId, ...rest }));
  const sleeper = Bun.spawn(["sleep", "60"], { env: { POCKET_AGENT_RUN: "x" } });
  const other = Bun.spawn(["sleep", "60"], { env: {} });
  try {
    record(other.pid, open, { procStart: await startOf(other.pid), entrypoint: "cli" });
    record(sleeper.pid, ours, { procStart: await startOf(sleeper.pid), entrypoint: "cli" });
    record(process.pid, gone, { procStart: "1", entrypoint: "cli" });
    const list = await book().list(project, 10);
    const found = new Map(list.map((session) => [session.session_id, session.open_in_terminal]));
    expect([open, gone, ours].map((id) => found.get(id ?? ""))).toEqual([true, false, false]);
  } finally {
    sleeper.kill();
    other.kill();
  }
});

test("where the CLI has never run there are no sessions", async () => {
  expect(await book().list(project, 10)).toEqual([]);
});

test("a thousand sessions are listed, and those that did not change are not read again", async () => {
  for (let at = 0; at < 1_000; at += 1)
    transcript([said("user", `prompt ${at}`), said("assistant", "y".repeat(500))], at);
  const sessions = book();
  expect(await sessions.list(project, 1_000)).toHaveLength(1_000);
  const begin = performance.now();
  const newest = await sessions.list(project, 50);
  console.log(`50 of 1,000 sessions: ${(performance.now() - begin).toFixed(1)} ms`);
  expect(newest.map(({ title }) => title)).toEqual(
    Array.from({ length: 50 }, (_, at) => `prompt ${999 - at}`),
  );
});
