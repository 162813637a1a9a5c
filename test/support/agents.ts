import { readdir, readFile } from "node:fs/promises";

export interface AgentProcess {
  readonly pid: number;
  readonly command: string;
}

/**
 * Everything alive that an agent has started under this home, the agent included: found by what
 * they inherited, the marker of their run and a HOME that is one test's alone. Linux only.
 */
export async function agentsOf(home: string): Promise<AgentProcess[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const environment = (await readProc(pid, "environ")).split("\0");
      const ours =
        environment.includes(`HOME=${home}`) &&
        environment.some((entry) => entry.startsWith("POCKET_AGENT_RUN="));
      if (!ours) return [];
      const command = (await readProc(pid, "cmdline")).split("\0").join(" ").trim();
      return [{ pid: Number(pid), command }];
    }),
  );
  return found.flat();
}

async function readProc(pid: string, file: string): Promise<string> {
  try {
    return await readFile(`/proc/${pid}/${file}`, "utf8");
  } catch {
    // It ended while the list was gone through.
    return "";
  }
}
