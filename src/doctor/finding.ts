import type { Config } from "../contract/options.ts";

/** What was looked at, and what was found. */
export interface Finding {
  readonly status: "ok" | "warn" | "fail";
  readonly what: string;
  readonly text: string;
  /** What to do about it. */
  readonly remedy?: string;
}

/** What the checks are about. */
export interface Patient {
  readonly config: Config;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The folder that the command was started in. */
  readonly cwd: string;
  /** Process of the server that runs on this data. */
  readonly running: number | undefined;
  /** Whether to mend what can be mended without losing anything. */
  readonly fix: boolean;
}

export const ok = (what: string, text: string): Finding => ({ status: "ok", what, text });
export const warn = (what: string, text: string, remedy: string): Finding => ({
  status: "warn",
  what,
  text,
  remedy,
});
export const fail = (what: string, text: string, remedy: string): Finding => ({
  status: "fail",
  what,
  text,
  remedy,
});
