import { ConfigError, splitArguments } from "../arguments.ts";
import { foreignFormat } from "../adapters/data-format.ts";
import { holderOf } from "../adapters/data-lock.ts";
import { controlPath } from "../adapters/control-path.ts";
import { loadConfig } from "../config.ts";
import type { Config } from "../contract/options.ts";
import { checkAgent } from "../doctor/agent.ts";
import { checkDoors } from "../doctor/doors.ts";
import { fail, type Finding, type Patient } from "../doctor/finding.ts";
import { checkHistory } from "../doctor/history.ts";
import { checkNetwork } from "../doctor/network.ts";
import { checkStorage } from "../doctor/storage.ts";
import { checkSurroundings } from "../doctor/surroundings.ts";
import { type Command, type Environment, UsageError } from "./command.ts";
import { ControlClient } from "./control-client.ts";

export const doctor: Command = {
  about: "Look for what is wrong, and say what to do about it",
  usage: ["doctor [--fix]"],
  details: [
    "Takes the flags of the server, and looks at what it would run with. Exits with 0 when nothing",
    "keeps it from working, else with 1. --fix mends what can be mended without deleting anything:",
    "modes of files, and metadata that its log can tell again (while no server runs).",
  ],
  async run(argv, env) {
    const { flags, words, settings } = splitArguments(argv, { json: "switch", fix: "switch" });
    if (words.length > 0) throw new UsageError("Cannot read the command: see doctor --help");
    const findings = await examine(settings, env, flags.has("fix"));
    const bad = findings.filter(({ status }) => status === "fail").length;
    if (flags.has("json")) console.log(JSON.stringify({ healthy: bad === 0, findings }, null, 2));
    else for (const finding of findings) console.log(textOf(finding));
    const verdict = bad === 0 ? "Nothing keeps the server from working" : `To be mended: ${bad}`;
    if (!flags.has("json")) console.log(`\n${verdict}`);
    return bad === 0 ? 0 : 1;
  },
};

async function examine(
  argv: readonly string[],
  env: Environment,
  fix: boolean,
): Promise<Finding[]> {
  let config: Config;
  try {
    config = loadConfig(argv, env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return [fail("settings", error.message, "Mend them where they are; see config check")];
  }
  const { running, problem } = await serverOf(config, env);
  const foreign = foreignFormat(config.dataDir);
  // What another version has written is not for this one to mend.
  const mend = fix && foreign === undefined;
  const patient: Patient = { config, env, cwd: process.cwd(), running, fix: mend };
  return [
    ...(await checkAgent(patient)),
    ...(foreign ? [fail("format", foreign.cause, foreign.remedy)] : []),
    ...checkStorage(patient),
    // A server that cannot be asked may have it open.
    ...checkHistory(problem ? { ...patient, fix: false } : patient),
    ...(problem ? [fail("local socket", problem, "Until then no command reaches a server")] : []),
    ...checkDoors(patient),
    ...checkNetwork(patient),
    ...checkSurroundings(patient),
  ];
}

/** The process of the server that answers for this data, and why none can be asked. */
async function serverOf(
  { dataDir }: Config,
  env: Environment,
): Promise<{ running: number | undefined; problem?: string }> {
  try {
    using server = await ControlClient.connect(controlPath(dataDir, env));
    return { running: server && holderOf(dataDir) };
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return { running: undefined, problem: error.message };
  }
}

const marks = { ok: "ok  ", warn: "!   ", fail: "FAIL" } as const;

function textOf({ status, what, text, remedy }: Finding): string {
  const line = `${marks[status]}  ${what.padEnd(18)}${text.replaceAll("\n", "\n" + " ".repeat(24))}`;
  return remedy === undefined ? line : `${line}\n${" ".repeat(24)}→ ${remedy}`;
}
