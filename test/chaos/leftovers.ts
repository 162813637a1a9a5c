import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** The markers of the agents that a server noted as running. */
export function recordedMarkers(dataDir: string): string[] {
  return readdirSync(join(dataDir, "runs")).flatMap((name) => /^(.*)\.json$/.exec(name)?.[1] ?? []);
}

/** Which of these markers some process still carries; one look at all processes for all of them. */
export function carried(markers: ReadonlySet<string>): Map<string, number[]> {
  const found = new Map<string, number[]>();
  for (const pid of readdirSync("/proc")) {
    const marker = /^\d+$/.test(pid) ? markerOf(pid) : undefined;
    if (marker && markers.has(marker))
      found.set(marker, [...(found.get(marker) ?? []), Number(pid)]);
  }
  return found;
}

function markerOf(pid: string): string | undefined {
  try {
    const environment = readFileSync(`/proc/${pid}/environ`, "utf8");
    return /(?:^|\0)POCKET_AGENT_RUN=([^\0]+)/.exec(environment)?.[1];
  } catch {
    // It has gone meanwhile.
    return undefined;
  }
}
