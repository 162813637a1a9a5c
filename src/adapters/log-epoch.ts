import type { LogState } from "../core/ports.ts";
import { bootId } from "./boot-id.ts";
import type { LogFiles } from "./log-files.ts";
import type { Recovery } from "./log-recovery.ts";

/**
 * The epoch of a log that was just opened, and why it is not the recorded one. It must change
 * whenever a client may have seen a record that is gone, because its number will be used again.
 */
export function epochOf(
  recorded: LogState | null,
  files: LogFiles,
  recovery: Recovery,
): { epoch: string; reason?: string } {
  const reason = broken(recorded, files, recovery);
  if (recorded && reason === undefined) return { epoch: recorded.epoch };
  const epoch = crypto.randomUUID().replaceAll("-", "").slice(0, 12);
  return reason === undefined ? { epoch } : { epoch, reason };
}

function broken(
  recorded: LogState | null,
  files: LogFiles,
  { last, lostRecords }: Recovery,
): string | undefined {
  if (!recorded) return last ? "nothing was recorded about the log" : undefined;
  if (recorded.last_seq > 0 && !last) return "the log is missing";
  if (recorded.last_seq > (last?.seq ?? 0)) return "the log ends before what was recorded";
  if (lostRecords) return "records at the end of the log could not be read";
  if (!recorded.clean && recorded.boot_id !== bootId())
    return "the machine restarted before the log was closed";
  if (recorded.file && !contains(files, recorded.file))
    return "the log file is not the one that was recorded";
  return undefined;
}

/** A log may have newer files than the recorded one: the server can end right after a rotation. */
function contains(files: LogFiles, recorded: NonNullable<LogState["file"]>): boolean {
  const found = files.all.find(({ name }) => name === recorded.name)?.identity();
  if (!found) return false;
  const { dev, ino, birth_ms } = recorded;
  const born = found.birth_ms === birth_ms || found.birth_ms === 0 || birth_ms === 0;
  return found.dev === dev && found.ino === ino && born;
}
