import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Fault } from "../src/contract/errors.ts";
import { carriers, ClaudeLab, isResult, readLines, until } from "./support/claude-lab.ts";
import { processTable } from "../src/adapters/claude/processes.ts";

const mebibyte = 1024 * 1024;

/** Bytes of memory, without what other tests of this process have left to be collected. */
function memory(): number {
  Bun.gc(true);
  return process.memoryUsage.rss();
}

describe("AgentProcess.lines", () => {
  test("are the agent's own, byte for byte, with deltas apart from events", async () => {
    await using lab = new ClaudeLab();
    const agent = lab.start();
    agent.prompt("utf8split:Grüße 👋\nstream:5", [{ media_type: "image/png", data: "AA==" }]);
    const lines = await readLines(agent, isResult);
    const texts = lines.map((line) => ("text" in line ? line.text : ""));
    for (const text of texts) expect(JSON.stringify(JSON.parse(text))).toBe(text);
    expect(texts.some((text) => text.includes("Grüße 👋"))).toBe(true);
    expect(lines.filter(({ kind }) => kind === "delta").length).toBeGreaterThanOrEqual(5);
    expect(lines.find(({ kind }) => kind === "event")).toMatchObject({
      event: { type: "system", subtype: "init" },
    });
    expect(lab.recorded("stdin")[0]).toMatchObject({
      line: { message: { content: [{ type: "text" }, { source: { data: "AA==" } }] } },
    });
  });

  test("ask for a tool and hear the answer; a withdrawn request is told", async () => {
    await using lab = new ClaudeLab();
    const agent = lab.start();
    agent.prompt(`tool:Write:{"file_path":"a.txt","content":"x"}`, []);
    const asked: string[] = [];
    const lines = await readLines(agent, (line) => {
      if (line.kind === "request" && asked.push(line.requestId) === 1) {
        expect(line.request.tool_name).toBe("Write");
        agent.answer(line.requestId, { behavior: "allow", updatedInput: line.request.input });
        agent.prompt(`tool:Write:{"file_path":"b.txt","content":"x"}`, []);
      } else if (line.kind === "request") {
        void agent.stop(false);
      }
      return false;
    });
    const [allowed, withdrawn = "none"] = asked;
    expect(lab.recorded("stdin")[1]).toMatchObject({
      line: {
        type: "control_response",
        response: { subtype: "success", request_id: allowed, response: { behavior: "allow" } },
      },
    });
    expect(lines).toContainEqual({ kind: "withdrawal", requestId: withdrawn });
  });

  test("go on after ones that cannot be read or are too long", async () => {
    await using lab = new ClaudeLab();
    const agent = lab.start({ lineBytes: 50_000 });
    agent.prompt("junk:secret\nflood:1:100000", []);
    const lines = await readLines(agent, isResult);
    const unreadable = lines.filter((line) => line.kind === "unreadable");
    expect(unreadable.filter(({ bytes }) => bytes > 100_000).length).toBe(1);
    expect(unreadable.filter(({ bytes }) => bytes < 20)).toHaveLength(4);
    expect(JSON.stringify(unreadable)).not.toContain("secret");
  });

  test("end with what came after the last newline", async () => {
    await using lab = new ClaudeLab();
    const whole = lab.start({ binary: lab.agentScript(`printf '{"type":"last"}'`) });
    expect(await readLines(whole)).toMatchObject([{ kind: "event", event: { type: "last" } }]);
    const cut = lab.start();
    cut.prompt("cutline", []);
    expect((await readLines(cut)).at(-1)).toMatchObject({ kind: "unreadable" });
  });

  test("are complete when they are read only after the agent has exited", async () => {
    await using lab = new ClaudeLab();
    const line = `{"type":"news","x":"${"x".repeat(900)}"}`;
    const body = `i=0; while [ $i -lt 60 ]; do echo '${line}'; i=$((i+1)); done`;
    const agent = lab.start({ binary: lab.agentScript(body) });
    await agent.exit;
    await until(() => lab.records().length === 0);
    expect(await readLines(agent)).toHaveLength(60);
  });

  test("end although something that cannot be found holds the pipe open", async () => {
    await using lab = new ClaudeLab();
    const pidFile = join(lab.dir, "pid");
    // It loses the marker only once it is under way.
    const body = `env -i /bin/sleep 60 & sleep 0.2; echo $! > ${pidFile}; echo '{"type":"news"}'`;
    const agent = lab.start({ binary: lab.agentScript(body) });
    expect(await readLines(agent)).toHaveLength(1);
    await agent.exit;
    const pid = Number(readFileSync(pidFile, "utf8"));
    expect(await processTable.started(pid)).not.toBeNull();
    process.kill(pid, "SIGKILL");
  });

  test("are not read, and so not kept in memory, while somebody holds a batch", async () => {
    await using lab = new ClaudeLab();
    const agent = lab.start();
    agent.prompt("flood:30000:3000", []);
    let seen = 0;
    let held = 0;
    for await (const batch of agent.lines) {
      seen += batch.filter((line) => "text" in line && line.text.includes('"req_flood"')).length;
      if (held === 0 && seen > 0) {
        const before = process.memoryUsage.rss();
        await Bun.sleep(300);
        held = process.memoryUsage.rss() - before;
        expect(seen).toBeLessThan(30_000);
      }
      if (batch.some(isResult)) break;
    }
    expect(seen).toBe(30_000);
    expect(held).toBeLessThan(32 * mebibyte);
  });

  test("let others have their turn between any two batches of a flood", async () => {
    await using lab = new ClaudeLab();
    const body = `yes '{"type":"news","x":"${"x".repeat(300)}"}' | head -n 100000`;
    const agent = lab.start({ binary: lab.agentScript(body) });
    let turns = 0;
    let seen = 0;
    let starved = 0;
    for await (const batch of agent.lines) {
      if (seen > 0 && turns === 0) starved += 1;
      seen += batch.length;
      turns = 0;
      setImmediate(() => (turns += 1));
    }
    expect(seen).toBe(100_000);
    expect(starved).toBe(0);
  });
});

describe("AgentProcess.exit", () => {
  test("has the last 8 kB of stderr, however much there was", async () => {
    await using lab = new ClaudeLab();
    const body = `head -c 200000000 /dev/zero | tr '\\0' 'e' >&2; printf 'ü%08190d' 7 >&2; exit 3`;
    const before = memory();
    const agent = lab.start({ binary: lab.agentScript(body) });
    const [exit] = await Promise.all([agent.exit, readLines(agent)]);
    expect(memory() - before).toBeLessThan(64 * mebibyte);
    expect(exit).toMatchObject({ code: 3, signal: null });
    expect(exit.stderr).toBe(`ü${"7".padStart(8190, "0")}`);
  });

  test("names the signal", async () => {
    await using lab = new ClaudeLab();
    const agent = lab.start();
    agent.prompt("selfkill:SIGKILL", []);
    expect(await agent.exit).toEqual({ code: null, signal: "SIGKILL", stderr: "" });
  });
});

describe("AgentProcess", () => {
  test("takes a large prompt and what comes after it in order", async () => {
    await using lab = new ClaudeLab();
    const copy = join(lab.dir, "copy");
    const agent = lab.start({ binary: lab.agentScript(`sleep 0.2; cat > ${copy}`) });
    const text = "é".repeat(8 * mebibyte);
    agent.prompt(text, []);
    agent.answer("r", { behavior: "deny", message: "no" });
    await agent.close();
    const lines = readFileSync(copy, "utf8").trimEnd().split("\n");
    expect(lines).toHaveLength(2);
    expect(JSON.parse(lines[0] ?? "").message.content[0].text === text).toBe(true);
    expect(lines[1]).toContain("control_response");
  });

  test("survives prompts that a dead agent cannot take", async () => {
    await using lab = new ClaudeLab();
    const agent = lab.start({ binary: lab.agentScript("exec <&-; sleep 0.2") });
    const marker = lab.marker();
    agent.prompt("x".repeat(4 * mebibyte), []);
    await Bun.sleep(20);
    agent.prompt("y".repeat(4 * mebibyte), []);
    await agent.exit;
    agent.prompt("z", []);
    await agent.close();
    expect(await carriers(marker)).toBeEmpty();
  });

  test("refuses what it does not know of the agent's requests", async () => {
    await using lab = new ClaudeLab();
    const heard = join(lab.dir, "heard");
    const request = `{"type":"control_request","request_id":"h1","request":{"subtype":"hook_callback"}}`;
    const agent = lab.start({ binary: lab.agentScript(`echo '${request}'; head -n 1 > ${heard}`) });
    expect(await readLines(agent)).toBeEmpty();
    expect(JSON.parse(readFileSync(heard, "utf8"))).toEqual({
      type: "control_response",
      response: { subtype: "error", request_id: "h1", error: "Not supported" },
    });
  });

  test("changes mode and model while it lives, and says why it cannot", async () => {
    await using lab = new ClaudeLab();
    const runner = lab.runner();
    const agent = lab.startOn(runner);
    const reading = readLines(agent);
    agent.prompt("say:hi", []);
    await agent.setPermissionMode("plan");
    await agent.setModel("opus");
    await agent.setModel(null);
    expect(await agent.setPermissionMode("bypassPermissions").catch(String)).toStartWith(
      "Fault: Cannot change the running agent: ",
    );
    await agent.close();
    const error: unknown = await agent.setModel("opus").catch((fault: unknown) => fault);
    expect(error).toBeInstanceOf(Fault);
    expect(error).toMatchObject({ code: "EXECUTION_FAILED" });
    await reading;
  });

  test("is found by its record while it lives, and only then", async () => {
    await using lab = new ClaudeLab();
    const agent = lab.start();
    const marker = lab.marker();
    const path = join(lab.recordsDir, `${marker}.json`);
    await until(() => readFileSync(path, "utf8").includes("start_time"));
    const record = JSON.parse(readFileSync(path, "utf8"));
    expect(await carriers(marker)).toEqual([record.pid]);
    expect(record).toMatchObject({ project_id: "p", marker });
    expect(await processTable.started(record.pid)).toBe(record.start_time);
    await agent.close();
    expect(existsSync(path)).toBe(false);
  });
});
