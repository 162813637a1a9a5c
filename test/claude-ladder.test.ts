import { describe, expect, test } from "bun:test";
import { Ladder } from "../src/adapters/claude/ladder.ts";
import { carriers, ClaudeLab, isResult, readLines, until } from "./support/claude-lab.ts";

const soon = { interruptMs: 1, inputMs: 1, terminateMs: 1 };
const never = { interruptMs: 1e8, inputMs: 1e8, terminateMs: 1e8 };

/** Rungs that note what is done to them; the process ends at `endsAt`. */
function rungs(endsAt: string) {
  const steps: string[] = [];
  const exited = Promise.withResolvers<void>();
  const note = (step: string): void => {
    steps.push(step);
    if (step === endsAt) exited.resolve();
  };
  return {
    steps,
    interrupt: async () => note("interrupt"),
    endInput: () => note("end"),
    survey: async () => note("survey"),
    signal: (name: string) => note(name),
    exited: exited.promise,
  };
}

describe("Ladder", () => {
  test("climbs from the interrupt to SIGKILL when nothing helps", async () => {
    const all = rungs("SIGKILL");
    await new Ladder(all, soon).climb("interrupt");
    expect(all.steps).toEqual("survey interrupt end survey SIGTERM SIGCONT SIGKILL".split(" "));
  });

  test("waits no longer than the process lives, and goes no further", async () => {
    const all = rungs("end");
    await new Ladder(all, never).climb("interrupt");
    expect(all.steps).toEqual(["survey", "interrupt", "end"]);
  });

  test("begins with the end of input to close, and is begun only once", async () => {
    const all = rungs("end");
    const ladder = new Ladder(all, never);
    await Promise.all([ladder.climb("input"), ladder.climb("interrupt"), ladder.climb("input")]);
    expect(all.steps).toEqual(["survey", "end"]);
  });

  test("goes straight to SIGKILL when forced in the middle of a wait", async () => {
    const all = rungs("SIGKILL");
    const ladder = new Ladder(all, never);
    const climb = ladder.climb("input");
    await until(() => all.steps.includes("end"));
    await ladder.force();
    await climb;
    expect(all.steps).toEqual(["survey", "end", "survey", "SIGKILL"]);
  });

  test("does nothing to a process that has exited", async () => {
    const all = rungs("");
    const ladder = new Ladder({ ...all, exited: Promise.resolve() }, soon);
    await Bun.sleep(0);
    await Promise.all([ladder.climb("interrupt"), ladder.force()]);
    expect(all.steps).toBeEmpty();
  });
});

describe("ClaudeProcess.stop leaves nothing behind", () => {
  const trap = `trap "" TERM INT HUP; sleep 302 & sleep 302; sleep 302`;
  const cases = [
    { name: "of a streaming agent", prompt: "stream:100000:10", least: 1 },
    { name: "of a running command", prompt: "bash:sleep 301", least: 2 },
    { name: "of a command that ignores signals", prompt: `bash:${trap}`, least: 3 },
    { name: "of a daemonised grandchild", prompt: "leave\nhang", least: 2 },
    { name: "of an agent that waits for its model", prompt: "hang", least: 1 },
    {
      name: "of one that ignores the interrupt",
      prompt: "ignoreinterrupt\nbash:sleep 303",
      least: 2,
    },
    { name: "of one that ignores everything", prompt: "leave\nstubborn", least: 2 },
    { name: "of one that hangs before its first line", prompt: "hanginit", least: 1 },
    { name: "of one with a background task", prompt: "background:60000", least: 1 },
    { name: "of a stopped one", prompt: "bash:sleep 304", least: 2, stopped: true },
  ];
  for (const { name, prompt, least, stopped = false } of cases) {
    test(name, async () => {
      await using lab = new ClaudeLab();
      const agent = lab.start();
      const reading = readLines(agent);
      agent.prompt(prompt, []);
      const marker = lab.marker();
      await until(() => lab.recorded("stdin").length > 0);
      await until(async () => (await carriers(marker)).length >= least);
      const pid = Number(lab.runs()[0]?.["pid"]);
      if (stopped) process.kill(pid, "SIGSTOP");
      await agent.stop(false);
      expect(await carriers(marker)).toBeEmpty();
      expect(lab.records()).toBeEmpty();
      await reading;
    });
  }

  test("when it is forced, for all who wait, though nobody reads its lines", async () => {
    await using lab = new ClaudeLab();
    const agent = lab.start({ ladder: never });
    agent.prompt("leave\nstubborn", []);
    const marker = lab.marker();
    await until(async () => (await carriers(marker)).length >= 2);
    const closing = [agent.close(), agent.stop(false)];
    await Promise.all([...closing, agent.stop(true), agent.stop(true)]);
    expect(await carriers(marker)).toBeEmpty();
    expect(lab.records()).toBeEmpty();
    expect(lab.swept).toBeGreaterThanOrEqual(1);
    expect(await agent.exit).toMatchObject({ code: null, signal: "SIGKILL" });
  });

  test("of a flood that nobody reads", async () => {
    await using lab = new ClaudeLab();
    const agent = lab.start();
    agent.prompt("flood:1000000:1000", []);
    await until(() => lab.recorded("stdin").length > 0);
    const marker = lab.marker();
    await agent.stop(false);
    expect(await carriers(marker)).toBeEmpty();
  });

  test("when the agent ends by itself", async () => {
    await using lab = new ClaudeLab();
    const agent = lab.start();
    agent.prompt("leave\nnoresult", []);
    const marker = lab.marker();
    await readLines(agent);
    expect(await agent.exit).toMatchObject({ code: 0, signal: null });
    await until(() => lab.records().length === 0);
    expect(await carriers(marker)).toBeEmpty();
    expect(lab.swept).toBeGreaterThanOrEqual(1);
  });

  test("and an idle agent is interrupted no more, only closed", async () => {
    await using lab = new ClaudeLab();
    const agent = lab.start({ ladder: never });
    agent.prompt("say:hi", []);
    const lines = await readLines(agent, isResult);
    expect(lines.some(isResult)).toBe(true);
    await agent.stop(false);
    expect(lab.recorded("stdin")).toHaveLength(1);
    expect(await agent.exit).toMatchObject({ code: 0 });
  });
});
