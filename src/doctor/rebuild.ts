import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { projectState } from "../contract/messages.ts";
import type { ProjectMetadata } from "../core/ports.ts";

const stateRecord = v.looseObject({
  message: v.looseObject({ type: v.literal("project_state"), data: projectState }),
});

/**
 * A project's metadata as its log tells it; undefined if that does not say. Trust is not taken
 * over: a person has to give it again. The log gets a new epoch, so that clients read it again.
 */
export function rebuilt(logs: string, id: string): ProjectMetadata | undefined {
  const state = lastState(logs);
  if (state?.id !== id) return undefined;
  const { path, created_at, last_active, session_id, usage } = state;
  return {
    version: 1,
    id,
    path,
    directory: null,
    created_at,
    last_active,
    session_id,
    usage,
    trusted: null,
    session_proven: session_id !== null,
    permission_mode: null,
    model: null,
    fork: false,
    remembered: { rules: [], directories: [] },
    open_permissions: [],
    queued: 0,
    paused: false,
    state: "IDLE",
    error: null,
    log: null,
  };
}

function lastState(logs: string): v.InferOutput<typeof projectState> | undefined {
  const names = namesIn(logs).filter((name) => name.endsWith(".jsonl"));
  for (const name of names.toSorted().toReversed()) {
    const lines = readFileSync(join(logs, name), "utf8").split("\n");
    for (const line of lines.toReversed()) {
      if (!line.includes('"project_state"')) continue;
      const record = v.safeParse(v.pipe(v.string(), v.parseJson(), stateRecord), line);
      if (record.success) return record.output.message.data;
    }
  }
  return undefined;
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    // A project that was never worked in has no log.
    return [];
  }
}
