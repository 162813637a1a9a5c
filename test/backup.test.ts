import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, renameSync, statSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { scratch, testApp } from "./support/app.ts";
import { Client } from "./support/client.ts";
import { ServerProcess } from "./support/server-process.ts";

setDefaultTimeout(60_000);

const main = join(import.meta.dir, "..", "src", "main.ts");

/** Runs a command against the data in a home. */
async function command(home: string, ...argv: string[]) {
  const child = Bun.spawn([process.execPath, main, ...argv], {
    cwd: home,
    env: { PATH: process.env["PATH"], HOME: home, PA_DATA_DIR: join(home, "data") },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [code, out, err] = await Promise.all([
    child.exited,
    child.stdout.text(),
    child.stderr.text(),
  ]);
  return { code, out, err };
}

test("a backup made while agents write is a history without gaps, and can be served", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const app = stack.use(await testApp({ PA_LOG_ROTATION_COUNT: "3000" }, { home }));
  const client = await app.client();
  const id = await client.create(await app.directory());
  await client.run(id, "say:first");
  await client.expect("project_state", "execute", {
    project_id: id,
    data: { prompt: "flood:40000:300" },
  });
  await client.expect("execution_queued", "execute", {
    project_id: id,
    data: { prompt: "say:later", queue: true },
  });
  await client.next(
    "agent_message",
    ({ data }) => data.type === "news" || data.type === "assistant",
  );
  const to = join(home, "copy");
  const { code, out, err } = await command(home, "backup", to, "--json");
  expect({ code, err }).toEqual({ code: 0, err: "" });
  expect(JSON.parse(out)).toMatchObject({ to, files: expect.any(Number) });
  for (const left of ["server.lock", "control.sock", "control.ws", "runs", "trash"])
    expect(existsSync(join(to, left))).toBe(false);
  for (const entry of readdirSync(to, { recursive: true, withFileTypes: true })) {
    const mode = statSync(join(entry.parentPath, entry.name)).mode & 0o777;
    expect(mode).toBe(entry.isDirectory() ? 0o700 : 0o600);
  }

  const elsewhere = await scratch(stack);
  renameSync(to, join(elsewhere, "data"));
  await using second = await testApp({}, { home: elsewhere });
  const reader = await second.client();
  const { data } = await reader.expect("project_joined", "project_join", {
    project_id: id,
    data: { after_seq: 0 },
  });
  expect(data.epoch).not.toBe(
    (await client.expect("project_joined", "project_join", { project_id: id })).data.epoch,
  );
  await reader.next("caught_up");
  const seqs = reader.events(id).map(({ seq }) => seq);
  expect(seqs.length).toBeGreaterThan(5);
  expect(seqs).toEqual(seqs.map((_, at) => at + 1));
});

test("a backup that takes the place of the data is another history, and clients read it again", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const [data, to, path] = [join(home, "data"), join(home, "copy"), join(home, "work")];
  await mkdir(path);
  const settings = { PA_LOG_ROTATION_COUNT: "500", PA_TIMEOUTS_SHUTDOWN: "100ms" };
  const first = stack.use(await ServerProcess.start({ home, settings }));
  const client = stack.use(await Client.connect(first.url));
  const id = await client.create(path);
  await client.run(id, "say:before");
  const flood = { project_id: id, data: { prompt: "flood:100000:300" } };
  await client.expect("project_state", "execute", flood);
  await client.next("agent_message", ({ seq = 0 }) => seq > 1_000);
  expect(await command(home, "backup", to)).toMatchObject({ code: 0, err: "" });
  await client.ask("agent_kill", { project_id: id });
  const ended = await client.run(id, "say:only the old history has this");
  expect(await first.stop()).toBe(0);
  renameSync(data, join(home, "old"));
  renameSync(to, data);

  await using second = await ServerProcess.start({ home, settings });
  // One that has more than the backup, and one that has less: neither may take it for the same.
  for (const after_seq of [ended.last_seq, 1_000]) {
    await using reader = await Client.connect(second.url);
    reader.patienceMs = 60_000;
    const joined = await reader.expect("project_joined", "project_join", {
      project_id: id,
      data: { after_seq, epoch: ended.epoch },
    });
    expect(joined.data).toMatchObject({ resume: "reset", from: 0 });
    expect(joined.data.epoch).not.toBe(ended.epoch);
    expect(joined.data.last_seq).toBeLessThan(ended.last_seq);
    await reader.next("caught_up");
    if (after_seq === 1_000) await reader.run(id, "say:only the new history has this");
    const seqs = reader.events(id).map(({ seq }) => seq);
    expect(seqs).toEqual(seqs.map((_, at) => at + 1));
    const text = JSON.stringify(reader.events(id));
    expect(text).toContain("say:before");
    expect(text).toContain("the server went down");
    expect(text).not.toContain("only the old history");
    expect(text.includes("only the new history")).toBe(after_seq === 1_000);
  }
});

test("a backup goes into an empty or new folder outside of the data, or is refused", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  await using server = await ServerProcess.start({ home });
  await using client = await Client.connect(server.url);
  await client.ask("ping");
  await Bun.write(join(home, "occupied", "file"), "");
  for (const to of ["occupied", "data/inside", "occupied/file/below"]) {
    const { code, err } = await command(home, "backup", to);
    expect({ to, code, err }).toEqual({
      to,
      code: 1,
      err: expect.stringMatching(/^Cannot make the backup/),
    });
  }
  expect(readdirSync(home).filter((name) => name.endsWith(".partial"))).toEqual([]);
});

test("projects can be listed, made and deleted with and without a server", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const directories = [join(home, "one"), join(home, "two")];
  for (const path of directories) await Bun.write(join(path, "file"), "");
  const json = async (...argv: string[]) => {
    const { code, out, err } = await command(home, ...argv, "--json");
    expect({ code, err }).toEqual({ code: 0, err: "" });
    return JSON.parse(out);
  };
  const { project: one } = await json("projects", "create", "one", "--trust");
  expect(one).toMatchObject({ path: directories[0], trusted: true });
  {
    await using server = await ServerProcess.start({ home });
    await using client = await Client.connect(server.url);
    const { project: two } = await json("projects", "create", "two");
    const { data } = await client.next("project_updated");
    expect(data.id).toBe(two.id);
    expect((await json("projects")).projects).toMatchObject([{ id: one.id }, { id: two.id }]);
    await json("projects", "delete", one.id.slice(0, 8));
    expect(await client.next("project_deleted")).toMatchObject({ project_id: one.id });
  }
  expect(await command(home, "projects", "create", "one/..")).toMatchObject({ code: 1 });
  await json("projects", "delete", "./two");
  expect(await json("projects")).toEqual({ projects: [] });
});
