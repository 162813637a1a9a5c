import { describe, expect, test } from "bun:test";
import { cleanEnvironment, runEnvironment } from "../src/adapters/claude/environment.ts";

const source = { environment: {}, extraEnv: [], sshAgent: true };

describe("cleanEnvironment", () => {
  test("keeps what toolchains need and adds the user's own entries", () => {
    const environment = { PATH: "/bin", HOME: "/home/me", UNSET: undefined, A: "old" };
    expect(cleanEnvironment({ ...source, environment, extraEnv: ["A=b=c", "EMPTY="] })).toEqual({
      PATH: "/bin",
      HOME: "/home/me",
      A: "b=c",
      EMPTY: "",
      DISABLE_AUTOUPDATER: "1",
    });
  });

  test("drops what belongs to the server, to a loader or to another agent", () => {
    const names = [
      "PA_PORT",
      "BUN_OPTIONS",
      "LD_PRELOAD",
      "DYLD_INSERT_LIBRARIES",
      "NODE_OPTIONS",
      "CLAUDECODE",
      "CLAUDE_CODE_CHILD_SESSION",
      "CLAUDE_CODE_SESSION_ID",
      "CLAUDE_CODE_ENTRYPOINT",
      "POCKET_AGENT_RUN",
      "POCKET_AGENT_TOKEN",
    ];
    const environment = Object.fromEntries(names.map((name) => [name, "x"]));
    const extraEnv = names.map((name) => `${name}=y`);
    expect(cleanEnvironment({ ...source, environment, extraEnv })).toEqual({
      DISABLE_AUTOUPDATER: "1",
    });
  });

  test("hands the SSH agent on only when told to", () => {
    const environment = { SSH_AUTH_SOCK: "/run/agent" };
    expect(cleanEnvironment({ ...source, environment })).toHaveProperty("SSH_AUTH_SOCK");
    expect(cleanEnvironment({ ...source, environment, sshAgent: false })).not.toHaveProperty(
      "SSH_AUTH_SOCK",
    );
  });

  test("refuses an entry that is no assignment", () => {
    expect(() => cleanEnvironment({ ...source, extraEnv: ["=x"] })).toThrow("Expected NAME=value");
  });
});

describe("runEnvironment", () => {
  test("of a trusted project is the clean one with the marker", () => {
    expect(runEnvironment({ A: "1" }, { marker: "m", trusted: true })).toEqual({
      A: "1",
      POCKET_AGENT_RUN: "m",
    });
  });

  test("of an untrusted project keeps git from running the project's monitor", () => {
    expect(runEnvironment({}, { marker: "m", trusted: false })).toEqual({
      POCKET_AGENT_RUN: "m",
      CLAUDE_CODE_DISABLE_GIT_INSTRUCTIONS: "1",
      GIT_CONFIG_COUNT: "1",
      GIT_CONFIG_KEY_0: "core.fsmonitor",
      GIT_CONFIG_VALUE_0: "false",
    });
  });

  test("appends to git settings that are there already", () => {
    const clean = { GIT_CONFIG_COUNT: "2", GIT_CONFIG_KEY_0: "a", GIT_CONFIG_KEY_1: "b" };
    expect(runEnvironment(clean, { marker: "m", trusted: false })).toMatchObject({
      GIT_CONFIG_COUNT: "3",
      GIT_CONFIG_KEY_0: "a",
      GIT_CONFIG_KEY_1: "b",
      GIT_CONFIG_KEY_2: "core.fsmonitor",
      GIT_CONFIG_VALUE_2: "false",
    });
  });
});
