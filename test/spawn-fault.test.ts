import { describe, expect, test } from "bun:test";

import { spawnFault } from "../src/adapters/claude/spawn-fault.ts";

const failed = (code: string) => Object.assign(new Error(`${code}: posix_spawn`), { code });

describe("a spawn that fails", () => {
  test.each([
    ["ENOENT", "CLAUDE_NOT_FOUND", "it is not there any more"],
    ["ENOTDIR", "CLAUDE_NOT_FOUND", "it is not there any more"],
    ["EACCES", "CLAUDE_NOT_FOUND", "it is not a program"],
    ["ENOEXEC", "CLAUDE_NOT_FOUND", "it is not a program"],
    ["E2BIG", "EXECUTION_FAILED", "the options are too long"],
    ["EAGAIN", "RESOURCE_LIMIT", "the system has no room for it"],
    ["EMFILE", "RESOURCE_LIMIT", "the system has no room for it"],
    ["ENFILE", "RESOURCE_LIMIT", "the system has no room for it"],
    ["ENOMEM", "RESOURCE_LIMIT", "the system has no room for it"],
    ["EIO", "EXECUTION_FAILED", "the system refused"],
  ])("with %s is %s and says why", (errno, code, why) => {
    const fault = spawnFault(failed(errno));

    expect(fault.code).toBe(code as typeof fault.code);
    expect(fault.message).toBe(`Cannot start claude: ${why}`);
  });

  test("with no code of the system says what was thrown", () => {
    expect(spawnFault("out of luck").details).toEqual({ reason: "out of luck" });
  });
});
