import * as v from "valibot";
import { projectState } from "../contract/messages.ts";
import type { LogRecord, MessageLog, ProjectMetadata } from "./ports.ts";

const stateEvent = v.looseObject({
  type: v.literal("project_state"),
  data: v.looseObject(
    v.pick(projectState, ["state", "session_id", "last_active", "usage", "error"]).entries,
  ),
});
const sessionLine = v.looseObject({
  type: v.picklist(["system", "result"]),
  session_id: v.string(),
});
/** How much of the log's end is looked at; a state that is further back is in the metadata. */
const lookBackBytes = 4 * 1024 * 1024;

/**
 * What the end of the log says about a project. The metadata only caches it, and may be older
 * than the log after a crash.
 */
export function restore(cached: ProjectMetadata, log: MessageLog): ProjectMetadata {
  let found: Partial<ProjectMetadata> = {};
  let session: string | undefined;
  let budget = lookBackBytes;
  log.scanBack((record) => {
    budget -= record.line.length;
    const message = parse(record);
    const line = v.safeParse(sessionLine, message);
    if (record.direction === "claude" && line.success) session ??= line.output.session_id;
    const state = v.safeParse(stateEvent, message);
    if (record.direction !== "server" || !state.success) return budget > 0;
    const { state: name, session_id, last_active, usage, error } = state.output.data;
    found = { state: name, session_id, last_active, usage, error };
    return false;
  });
  const session_id = session ?? found.session_id ?? cached.session_id;
  // A session is proven by a turn that ended well, which the metadata recorded when it did.
  const session_proven = cached.session_proven && session_id === cached.session_id;
  return { ...cached, ...found, session_id, session_proven };
}

function parse(record: LogRecord): unknown {
  try {
    return JSON.parse(record.message);
  } catch {
    // A damaged record says nothing about the state; the log has reported it.
    return undefined;
  }
}
