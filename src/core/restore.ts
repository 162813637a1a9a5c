import * as v from "valibot";
import { projectState } from "../contract/messages.ts";
import type { LogRecord, MessageLog, ProjectMetadata } from "./ports.ts";

const known = [
  "state",
  "session_id",
  "last_active",
  "usage",
  "error",
  "queued",
  "pending_permissions",
] as const;
const stateData = v.object(v.pick(projectState, known).entries);
const serverEvent = v.variant("type", [
  v.looseObject({
    type: v.literal("project_state"),
    data: stateData,
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
  let found: v.InferOutput<typeof stateData> | undefined;
  let session: string | undefined;
  let queued = 0;
  const open = new Set<string>();
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
  const { pending_permissions, ...state } = found ?? { ...cached, pending_permissions: 1 };
  const session_id = session ?? state.session_id;
  const same = session_id === cached.session_id;
  // The metadata may still name requests that the log knows to be settled.
  const asked = pending_permissions > 0 ? cached.open_permissions : [];
  return {
    ...cached,
    ...state,
    session_id,
    // Proven by a turn that ended well, which the metadata recorded when it did.
    session_proven: same && cached.session_proven,
    fork: same && cached.fork,
    remembered: same ? cached.remembered : { rules: [], directories: [] },
    open_permissions: [...new Set([...asked, ...[...open].toReversed()])].filter(
      (id) => !resolved.has(id),
    ),
    // More than there may be is only a reason to look.
    queued: state.queued + queued,
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
