import { Fault } from "../contract/errors.ts";
import type { AgentRunner } from "../core/ports.ts";
import { TrustRecord } from "./claude/trust.ts";

/** Starts nothing, for work on the data while no server runs. */
export function idleRunner(env: Readonly<Record<string, string | undefined>>): AgentRunner {
  const record = new TrustRecord(env);
  const fault = new Fault("SERVER_SHUTDOWN", "Cannot start an agent: no server is running");
  return {
    obstacle: () => fault,
    trusts: (path) => record.trusts(path),
    start() {
      throw fault;
    },
    swept: () => Promise.resolve(),
    health: () =>
      Promise.resolve({
        available: false,
        version: null,
        authenticated: null,
        path: null,
        problem: fault.message,
      }),
  };
}
