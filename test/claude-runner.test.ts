import { describe, expect, test } from "bun:test";
import { chmodSync, chownSync, mkdirSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findProgram } from "../src/adapters/claude/binary.ts";
import { processTable } from "../src/adapters/claude/processes.ts";
import { Fault } from "../src/contract/errors.ts";
import { carriers, ClaudeLab, readLines, until } from "./support/claude-lab.ts";

/** What a call throws. */
function thrown(call: () => unknown): unknown {
  try {
    call();
  } catch (error) {
    return error;
  }
  throw new Error("Expected it to throw");
}

/** Makes directories with a program called `tool` in each; gives back a PATH of them. */
function withDirs(lab: ClaudeLab, ...names: readonly string[]): string {
  const dirs = names.map((name) => join(lab.dir, name));
  for (const dir of dirs) {
    mkdirSync(dir, { recursive: true, mode: 0o755 });
    writeFileSync(join(dir, "tool"), "#!/bin/sh\n", { mode: 0o755 });
  }
  return dirs.join(":");
}

/** Writes what an earlier server would have; gives back the marker. */
function record(lab: ClaudeLab, fields: Record<string, unknown>): string {
  const marker = crypto.randomUUID();
  mkdirSync(lab.recordsDir, { recursive: true });
  const text = JSON.stringify({ project_id: "p", marker, started_at: "", ...fields });
  writeFileSync(join(lab.recordsDir, `${marker}.json`), text);
  return marker;
}

describe("findProgram", () => {
  test("takes the first directory of PATH that has the program", async () => {
    await using lab = new ClaudeLab();
    const searchPath = withDirs(lab, "a", "b");
    const found = findProgram("tool", { searchPath: `/no/such:${searchPath}`, project: null });
    expect(found?.path).toBe(join(lab.dir, "a/tool"));
    expect(findProgram("other", { searchPath, project: null })).toBeUndefined();
  });

  test("passes over directories of the project, of others, and relative ones", async () => {
    await using lab = new ClaudeLab();
    const searchPath = withDirs(lab, "project/bin", "open", "alias", "good");
    chmodSync(join(lab.dir, "open"), 0o1777);
    renameSync(join(lab.dir, "alias"), join(lab.project, "inner"));
    symlinkSync(join(lab.project, "inner"), join(lab.dir, "alias"));
    const path = `.:project/bin::${searchPath}`;
    const found = findProgram("tool", { searchPath: path, project: lab.project });
    expect(found?.path).toBe(join(lab.dir, "good/tool"));
    // Only root can make a directory somebody else's; root's own are fine for everybody.
    if (process.getuid?.() === 0) {
      chownSync(join(lab.dir, "good"), 12_345, 12_345);
      expect(findProgram("tool", { searchPath: path, project: lab.project })).toBeUndefined();
    }
  });

  test.if(process.getuid?.() === 0)(
    "passes over directories of a group that somebody else is in, or nobody knows",
    async () => {
      await using lab = new ClaudeLab();
      const searchPath = withDirs(lab, "a");
      const directory = join(lab.dir, "a");
      const nobodys = Number(Bun.spawnSync(["id", "-g", "nobody"]).stdout.toString());
      const find = (gid: number, mode: number) => {
        chownSync(directory, 0, gid);
        chmodSync(directory, mode);
        return findProgram("tool", { searchPath, project: null });
      };
      expect(find(0, 0o775)).toBeDefined();
      expect(find(nobodys, 0o755)).toBeDefined();
      expect(find(nobodys, 0o2775)).toBeUndefined();
      expect(find(54_321, 0o775)).toBeUndefined();
    },
  );

  test("passes over a directory of that name and files nobody may execute", async () => {
    await using lab = new ClaudeLab();
    const searchPath = withDirs(lab, "a", "b", "c");
    chmodSync(join(lab.dir, "a/tool"), 0o644);
    renameSync(join(lab.dir, "b/tool"), join(lab.dir, "b/other"));
    mkdirSync(join(lab.dir, "b/tool"));
    const found = findProgram("tool", { searchPath, project: null });
    expect(found?.path).toBe(join(lab.dir, "c/tool"));
  });

  test("takes an absolute path as it is, and no relative one", async () => {
    await using lab = new ClaudeLab();
    const searchPath = withDirs(lab, "a");
    const project = join(lab.dir, "a");
    expect(findProgram(join(lab.dir, "a/tool"), { searchPath, project })).toBeDefined();
    expect(findProgram(join(lab.dir, "tool"), { searchPath, project })).toBeUndefined();
    expect(findProgram("./tool", { searchPath, project })).toBeUndefined();
  });
});

describe("claudeRunner", () => {
  test("says how to install a CLI that is not there", async () => {
    await using lab = new ClaudeLab();
    await using runner = lab.runner({ binary: "no-such-claude" });
    const obstacle = runner.obstacle();
    expect(obstacle).toMatchObject({ code: "CLAUDE_NOT_FOUND" });
    expect(obstacle?.message).toContain("npm install -g @anthropic-ai/claude-code");
    expect(thrown(() => lab.startOn(runner))).toMatchObject({ code: "CLAUDE_NOT_FOUND" });
    expect(lab.records()).toBeEmpty();
    expect(await runner.health()).toMatchObject({ available: false, problem: obstacle?.message });
  });

  test("knows the version, the login and the path of the CLI", async () => {
    await using lab = new ClaudeLab();
    await using runner = lab.runner();
    expect(runner.obstacle()).toBeUndefined();
    const all = await Promise.all([runner.health(), runner.health()]);
    expect(all[0]).toMatchObject({ available: true, version: "2.1.197", authenticated: true });
    expect(all[0]).toMatchObject({ problem: null, path: expect.stringContaining("fake-claude") });
    expect(all[1]).toEqual(all[0]);
    await runner.health();
    const asked = lab.recorded("start").map((start) => start["argv"]);
    expect(asked).toEqual([["--version"], ["auth", "status"]]);
  });

  test("says that nobody is logged in", async () => {
    await using lab = new ClaudeLab();
    await using runner = lab.runner({ environment: { FAKE_CLAUDE_LOGGED_OUT: "1" } });
    expect(await runner.health()).toMatchObject({
      available: true,
      authenticated: false,
      problem: "Nobody is logged in to claude: run it once and log in",
    });
  });

  test("refuses a CLI that is too old, until it is updated", async () => {
    await using lab = new ClaudeLab();
    const binary = lab.script(`echo "1.0.100 (Claude Code)"`);
    await using runner = lab.runner({ binary });
    expect(await runner.health()).toMatchObject({ available: false, version: "1.0.100" });
    expect(runner.obstacle()?.message).toContain("version 1.0.100 is too old");
    expect(thrown(() => lab.startOn(runner))).toMatchObject({ code: "CLAUDE_NOT_FOUND" });
    lab.script(`echo "2.0.10 (Claude Code)"; echo`);
    expect(runner.obstacle()).toBeUndefined();
    // Of this version nobody can ask who is logged in.
    expect(await runner.health()).toMatchObject({ version: "2.0.10", authenticated: null });
    expect(lab.logs).toContain("This version of claude is old");
  });

  test("takes a CLI that does not state its version, and says so", async () => {
    await using lab = new ClaudeLab();
    await using runner = lab.runner({ binary: lab.script("exit 1") });
    const health = await runner.health();
    expect(health).toMatchObject({ available: true, version: null, authenticated: null });
    expect(health.problem).toBe("claude does not state its version");
  });

  test("ends its questions to the CLI when it is disposed of", async () => {
    await using lab = new ClaudeLab();
    const pidFile = join(lab.dir, "pid");
    const runner = lab.runner({ binary: lab.script(`echo $$ > ${pidFile}; exec sleep 60`) });
    const health = runner.health();
    await until(() => Bun.file(pidFile).exists());
    await until(async () => (await Bun.file(pidFile).text()).endsWith("\n"));
    const pid = Number(await Bun.file(pidFile).text());
    expect(process.kill(pid, 0)).toBe(true);
    await runner[Symbol.asyncDispose]();
    expect(() => process.kill(pid, 0)).toThrow("ESRCH");
    expect(await health).toMatchObject({ version: null });
  });

  test("starts the agent in its project, with the user's umask and a clean environment", async () => {
    await using lab = new ClaudeLab();
    const umask = process.umask(0o077);
    const environment = { PA_DATA_DIR: "x", LD_PRELOAD: "", SSH_AUTH_SOCK: "x", MINE: "x" };
    const agent = lab.start({ environment, userUmask: 0o002 }, { trusted: false });
    expect(process.umask(umask)).toBe(0o077);
    const marker = lab.marker();
    await until(() => lab.runs().length === 1);
    const [start] = lab.runs();
    expect(start).toMatchObject({ cwd: lab.project, umask: 0o002, marker });
    expect(start?.["argv"]).toContain("--setting-sources=user");
    expect(start?.["env"]).toContain("MINE");
    expect(start?.["env"]).toContain("GIT_CONFIG_COUNT");
    for (const name of Object.keys(environment).slice(0, 3)) {
      expect(start?.["env"]).not.toContain(name);
    }
    // A session of its own: signals to the server's group do not reach it.
    expect(() => process.kill(-Number(start?.["pid"]), 0)).not.toThrow();
    await agent.close();
  });

  test("says what is wrong when the agent cannot be spawned, and leaves no record", async () => {
    await using lab = new ClaudeLab();
    await using runner = lab.runner();
    const gone = { cwd: join(lab.dir, "gone") };
    const long = { options: { append_system_prompt: "x".repeat(200_000) } };
    const noProgram = lab.runner({ binary: lab.script("") });
    writeFileSync(lab.script(""), "\u007fELF nonsense");
    expect(thrown(() => lab.startOn(runner, gone))).toMatchObject({ code: "INVALID_PATH" });
    expect(thrown(() => lab.startOn(runner, long))).toMatchObject({ code: "EXECUTION_FAILED" });
    expect(thrown(() => lab.startOn(noProgram))).toBeInstanceOf(Fault);
    expect(lab.records()).toBeEmpty();
  });
});

describe("claudeRunner.swept", () => {
  const sleeper = ["/bin/sh", "-c", "sleep 60; sleep 60"];

  test("waits until nothing of an earlier server's runs is left", async () => {
    await using lab = new ClaudeLab();
    const marker = record(lab, {});
    const child = Bun.spawn(sleeper, { env: { POCKET_AGENT_RUN: marker } });
    await using runner = lab.runner();
    await runner.swept("another project");
    await runner.swept("p");
    expect(await carriers(marker)).toBeEmpty();
    expect(lab.records()).toBeEmpty();
    expect(lab.swept).toBeGreaterThanOrEqual(1);
    await child.exited;
  });

  test("sets a record aside that it cannot read, and still finds the processes", async () => {
    await using lab = new ClaudeLab();
    const marker = record(lab, { project_id: 7 });
    const child = Bun.spawn(sleeper, { env: { POCKET_AGENT_RUN: marker } });
    await using runner = lab.runner();
    await runner.swept("any project");
    expect(await carriers(marker)).toBeEmpty();
    expect(lab.records()).toEqual([`${marker}.json.corrupt`]);
    expect(lab.logs).toContain("A record of a run cannot be read");
    await child.exited;
  });

  test("ends a process that is known by pid and start time alone", async () => {
    await using lab = new ClaudeLab();
    const child = Bun.spawn(["/bin/sleep", "60"], { env: {} });
    const started = await processTable.started(child.pid);
    record(lab, { pid: child.pid, start_time: started });
    writeFileSync(join(lab.recordsDir, "torn.json.new"), "{");
    await using runner = lab.runner();
    await runner.swept("p");
    await child.exited;
    expect(lab.records()).toBeEmpty();
  });

  test("finds what a server left that was killed in the middle of a run", async () => {
    await using lab = new ClaudeLab();
    const lost = lab.start();
    lost.prompt("leave\nhang", []);
    const marker = lab.marker();
    await until(async () => (await carriers(marker)).length >= 2);
    await using next = lab.runner();
    await next.swept("p");
    expect(await carriers(marker)).toBeEmpty();
    await readLines(lost);
  });
});

describe("claudeRunner.trusts", () => {
  test("follows the CLI's own record, and its changes", async () => {
    await using lab = new ClaudeLab();
    await using runner = lab.runner();
    const file = join(lab.dir, ".claude.json");
    const write = (projects: unknown): void => writeFileSync(file, JSON.stringify({ projects }));
    expect(runner.trusts("/a/b")).toBe(false);
    write({ "/a": { hasTrustDialogAccepted: true }, "/c": { hasTrustDialogAccepted: false } });
    // Like the CLI: what lies below an accepted directory is accepted.
    const paths = ["/a", "/a/b", "/ab", "/c", "/"];
    expect(paths.filter((path) => runner.trusts(path))).toEqual(["/a", "/a/b"]);
    write({ "/c": { hasTrustDialogAccepted: true, allowedTools: [] } });
    expect([runner.trusts("/a"), runner.trusts("/c")]).toEqual([false, true]);
    write({ "/c": { hasTrustDialogAccepted: "true" } });
    expect(runner.trusts("/c")).toBe(false);
    writeFileSync(file, `{"projects":{"/c":{"hasTrust`);
    expect(runner.trusts("/c")).toBe(false);
  });

  test("looks where the CLI keeps its configuration", async () => {
    await using lab = new ClaudeLab();
    const dir = join(lab.dir, "config");
    mkdirSync(dir);
    const projects = { "/a": { hasTrustDialogAccepted: true } };
    writeFileSync(join(dir, ".claude.json"), JSON.stringify({ projects }));
    await using elsewhere = lab.runner({ environment: { CLAUDE_CONFIG_DIR: dir } });
    await using usual = lab.runner();
    expect([elsewhere.trusts("/a"), usual.trusts("/a")]).toEqual([true, false]);
  });
});
