import { describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  familyOf,
  parseFamilies,
  pidsWithMarker,
  processTable,
  psStart,
  statStart,
  type ProcessTable,
} from "../src/adapters/claude/processes.ts";
import { sweep } from "../src/adapters/claude/sweep.ts";
import { until } from "./support/claude-lab.ts";

const marker = "7d7ffb5e-3a3c-4a54-9b0a-1c3f5c1d2e3f";
const other = "00000000-3a3c-4a54-9b0a-1c3f5c1d2e3f";

/** Pids that no system has, one scan after another; the last repeats. */
function table(scans: readonly (readonly number[])[]): ProcessTable & { scanned: () => number } {
  let at = 0;
  return {
    carriers: async () => scans[Math.min(at++, scans.length - 1)] ?? [],
    family: async () => [],
    started: async () => null,
    scanned: () => at,
  };
}

describe("processTable", () => {
  test("finds processes by their environment, not by what they are called with", async () => {
    const mine = crypto.randomUUID();
    const entry = `POCKET_AGENT_RUN=${mine}`;
    const options = { stdin: "ignore", stdout: "ignore", stderr: "ignore" } as const;
    const environments = [
      { POCKET_AGENT_RUN: mine },
      { POCKET_AGENT_RUN: `${mine}x` },
      { X: entry },
    ];
    await using children = new AsyncDisposableStack();
    const pids = environments.map((env) => {
      const child = children.use(Bun.spawn(["/bin/sleep", "60"], { ...options, env }));
      return child.pid;
    });
    expect(await processTable.carriers(mine)).toEqual(pids.slice(0, 1));
  });

  test("finds a process that replaces its program all the time", async () => {
    const mine = crypto.randomUUID();
    const folder = mkdtempSync(join(tmpdir(), "exec-"));
    const program = join(folder, "again");
    writeFileSync(program, '#!/bin/sh\nexec "$0"\n', { mode: 0o700 });
    const child = Bun.spawn([program], { env: { POCKET_AGENT_RUN: mine }, stderr: "ignore" });
    let missed = 0;
    for (let look = 0; look < 50; look += 1) {
      const found = await processTable.carriers(mine);
      if (!found.includes(child.pid)) missed += 1;
    }
    child.kill("SIGKILL");
    await child.exited;
    rmSync(folder, { recursive: true });
    expect(missed).toBe(0);
  });

  test("tells a process from a later one, and none from one that is dead", async () => {
    const child = Bun.spawn(["/bin/sleep", "60"]);
    const started = await processTable.started(child.pid);
    expect(started).toMatch(/\d/);
    expect(await processTable.started(child.pid)).toBe(started);
    child.kill("SIGKILL");
    await child.exited;
    expect(await processTable.started(child.pid)).toBeNull();
  });
});

describe("what the system says of processes", () => {
  test("/proc/PID/stat: the start time, after a name that may hold anything", () => {
    const rest = "S 1 2 2 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 987654 8192 1";
    expect(statStart(`42 (a) b ) c) ${rest}`)).toBe("987654");
    expect(statStart(`42 (x) ${rest.replace("S", "Z")}`)).toBeNull();
    expect(statStart("")).toBeNull();
  });

  test("ps -o stat=,lstart=: the start time of one process", () => {
    expect(psStart("Ss   Fri Nov 21 01:03:07 2025\n")).toBe("Fri Nov 21 01:03:07 2025");
    expect(psStart("Z    Fri Nov 21 01:03:07 2025\n")).toBeNull();
    expect(psStart("")).toBeNull();
  });

  test("ps -axEww: the pids of those that carry the marker as a whole word", () => {
    const output = [
      `    1 /sbin/launchd`,
      `  501 claude -p HOME=/Users/me POCKET_AGENT_RUN=${marker} PATH=/bin`,
      `50112 /bin/zsh -c sleep 300 POCKET_AGENT_RUN=${marker}`,
      `  502 sleep 300 POCKET_AGENT_RUN=${marker}0`,
      `  503 sleep 300 XPOCKET_AGENT_RUN=${marker}`,
      `  504 sleep 300 POCKET_AGENT_RUN=${other}`,
      ``,
    ].join("\n");
    expect(pidsWithMarker(output, marker)).toEqual([501, 50112]);
  });

  test("ps -axo pid=,ppid=,pgid=,lstart=: a process and all below it, across lost parents", () => {
    const at = "Fri Nov 21 01:03:07 2025";
    const rows = [
      `    1     0     1 ${at}`,
      `  300     1   300 ${at}`,
      // Listed before its parent, as pids wrap around.
      `   40   502   502 ${at}`,
      `  501   300   501 ${at}`,
      `  502   501   502 ${at}`,
      // Its parent has gone, but not the leader of its group.
      `  503     1   502 ${at}`,
      `  504     1   504 ${at}    `,
      `not a row`,
    ];
    const all = parseFamilies(rows.join("\n"));
    expect(all).toHaveLength(7);
    expect(all.at(-1)).toEqual({ pid: 504, parent: 1, group: 504, started: at });
    expect(familyOf(501, all).map(({ pid }) => pid)).toEqual([40, 501, 502, 503]);
    expect(familyOf(999, all)).toBeEmpty();
  });
});

describe("sweep", () => {
  test("goes on until two scans find nothing, and counts each process once", async () => {
    const forking = table([[2 ** 30], [2 ** 30, 2 ** 30 + 1], [2 ** 30 + 2], []]);
    expect(await sweep({ marker, known: [] }, forking)).toEqual({ swept: 3, clean: true });
    expect(forking.scanned()).toBe(5);
  });

  test("finds what one scan has missed, because it was being forked", async () => {
    const elusive = table([[], [2 ** 30], []]);
    expect(await sweep({ marker, known: [] }, elusive)).toEqual({ swept: 1, clean: true });
  });

  test("gives up on what cannot be killed, and says so", async () => {
    const immortal = table([[2 ** 30]]);
    expect(await sweep({ marker, known: [] }, immortal)).toEqual({ swept: 1, clean: false });
  });

  test("ends one that ignores SIGTERM", async () => {
    const mine = crypto.randomUUID();
    const child = Bun.spawn(
      ["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"],
      {
        env: { POCKET_AGENT_RUN: mine },
      },
    );
    await child.stdout.getReader().read();
    const { clean } = await sweep({ marker: mine, known: [] }, processTable);
    expect(clean).toBe(true);
    await child.exited;
    expect(child.signalCode).toBe("SIGKILL");
  });

  test("ends a known process only while it is the same one", async () => {
    const child = Bun.spawn(["/bin/sleep", "60"]);
    const { pid } = child;
    const started = (await processTable.started(pid)) ?? "";
    await sweep({ marker, known: [{ pid, started: `${started}0` }] }, processTable);
    expect(await processTable.started(pid)).toBe(started);
    await sweep({ marker, known: [{ pid, started }] }, processTable);
    await until(() => child.signalCode === "SIGTERM");
  });
});
