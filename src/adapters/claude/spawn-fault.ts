import { Fault } from "../../contract/errors.ts";

/** What a failed spawn means to whoever asked for the run. */
export function spawnFault(error: unknown): Fault {
  const reason = codeOf(error);
  switch (reason) {
    case "ENOENT":
    case "ENOTDIR":
      return new Fault("CLAUDE_NOT_FOUND", "Cannot start claude: it is not there any more");
    case "EACCES":
    case "ENOEXEC":
      return new Fault("CLAUDE_NOT_FOUND", "Cannot start claude: it is not a program", { reason });
    case "E2BIG":
      return new Fault("EXECUTION_FAILED", "Cannot start claude: the options are too long");
    case "EAGAIN":
    case "EMFILE":
    case "ENFILE":
    case "ENOMEM":
      return new Fault("RESOURCE_LIMIT", "Cannot start claude: the system has no room for it", {
        resource: "processes",
        reason,
      });
    default:
      return new Fault("EXECUTION_FAILED", "Cannot start claude: the system refused", { reason });
  }
}

function codeOf(error: unknown): string {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" ? code : String(error);
}
