import { existsSync, lstatSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fail, type Finding, ok, type Patient, warn } from "./finding.ts";

/** What a cloned repository may hold that looks like ours, or that Bun would run. */
const suspicious = ["bunfig.toml", ".env", "data", "certs", "config.yaml", "authorized_keys"];
const minuteMs = 60_000;

/** What lies around the server, and could be taken for its own. */
export function checkSurroundings(patient: Patient): Finding[] {
  return [...checkFolder(patient), ...checkEnvironment(patient), ...checkClock(patient)];
}

function checkFolder({ cwd, config }: Patient): Finding[] {
  const there = suspicious.filter(
    (name) => existsSync(join(cwd, name)) && join(cwd, name) !== config.dataDir,
  );
  const ownCheckout = cwd === join(import.meta.dir, "../..");
  if (there.length === 0 || ownCheckout)
    return [ok("folder", "nothing here would be taken for the server's own")];
  const fromSource = !Bun.main.startsWith("/$bunfs/");
  const list = there.join(", ");
  if (fromSource && there.includes("bunfig.toml"))
    return [
      fail(
        "folder",
        `${cwd} holds ${list}, and Bun runs what its bunfig.toml names when it starts from source`,
        "Start the server elsewhere, or use the compiled program, which ignores it",
      ),
    ];
  return [
    warn(
      "folder",
      `${cwd} holds ${list}, which the server does not read unless it is told to`,
      "Nothing, unless you meant them: then name them with --data-dir or --config",
    ),
  ];
}

function checkEnvironment({ env }: Patient): Finding[] {
  return ["BUN_OPTIONS", "BUN_INSPECT", "BUN_BE_BUN", "NODE_TLS_REJECT_UNAUTHORIZED"]
    .filter((name) => env[name] !== undefined)
    .map((name) =>
      warn("environment", `${name} is set, and changes how programs run`, `unset ${name}`),
    );
}

/** Certificates, tokens and histories all believe the clock. */
function checkClock({ config }: Patient): Finding[] {
  const now = Date.now();
  const remedy = "Set the clock, for instance by turning on network time";
  if (now < Date.UTC(2026, 0, 1)) return [fail("clock", new Date(now).toISOString(), remedy)];
  const logs = join(config.dataDir, "audit.jsonl");
  const ahead = existsSync(logs) ? statSync(logs).mtimeMs - now : 0;
  const newest = Math.max(ahead, ...newestIn(config.dataDir).map((time) => time - now));
  if (newest > minuteMs)
    return [
      fail(
        "clock",
        `files of the server are ${Math.round(newest / minuteMs)} min ahead of it`,
        remedy,
      ),
    ];
  return [ok("clock", new Date(now).toISOString())];
}

function newestIn(dataDir: string): number[] {
  if (!existsSync(dataDir)) return [];
  return readdirSync(dataDir).map((name) => lstatSync(join(dataDir, name)).mtimeMs);
}
