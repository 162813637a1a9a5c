import * as v from "valibot";
import { projectState } from "../contract/messages.ts";
import type { LogRecord, MessageLog, ProjectMetadata } from "./ports.ts";

const known = ["state", "session_id", "last_active", "usage", "error"] as const;
const serverEvent = v.variant("type", [
  v.looseObject({
    type: v.literal("project_state"),
    data: v.object(v.pick(projectState, known).entries),
  }),
  v.looseObject({
    type: v.picklist(["permission_request", "permission_resolved"]),
    data: v.looseObject({ permission_id: v.string() }),
  }),
  v.looseObject({ type: v.literal("execution_queued") }),
]);
const sessionLine = v.looseObject({
  type: v.picklist(["system", "result"]),
  session_id: v.string(),
});
/** How much of the log's end is looked at; what is further back is in the metadata. */
const lookBackBytes = 4 * 1024 * 1024;

/**
 * What the end of the log says about a project. The metadata only caches it, and may be older
 * than the log after a crash.
 */
export function restore(cached: ProjectMetadata, log: MessageLog): ProjectMetadata {
  let found: Partial<ProjectMetadata> = {};
  let session: string | undefined;
  let queued = 0;
  const open = new Set(cached.open_permissions);
  const resolved = new Set<string>();
  let budget = lookBackBytes;
  log.scanBack((record) => {
    budget -= record.line.length;
    const message = parse(record);
    if (record.direction === "claude") {
      const line = v.safeParse(sessionLine, message);
      if (line.success) session ??= line.output.session_id;
    }
    const said = record.direction === "server" ? v.safeParse(serverEvent, message) : undefined;
    if (!said?.success) return budget > 0;
    const { output } = said;
    if (output.type === "project_state") {
      found = output.data;
      return false;
    }
    if (output.type === "execution_queued") queued += 1;
    else if (output.type === "permission_resolved") resolved.add(output.data.permission_id);
    else open.add(output.data.permission_id);
    return budget > 0;
  });
  const session_id = session ?? found.session_id ?? cached.session_id;
  return {
    ...cached,
    ...found,
    session_id,
    // Proven by a turn that ended well, which the metadata recorded when it did.
    session_proven: cached.session_proven && session_id === cached.session_id,
    open_permissions: [...open].filter((id) => !resolved.has(id)),
    // More than there may be is only a reason to look.
    queued: cached.queued + queued,
  };
}

function parse(record: LogRecord): unknown {
  try {
    return JSON.parse(record.message);
  } catch {
    // A damaged record says nothing about the state; the log has reported it.
    return undefined;
  }
}
