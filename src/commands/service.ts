import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import { splitArguments } from "../arguments.ts";
import {
  launchd,
  removeService,
  type ServiceManager,
  systemd,
  writeService,
} from "../adapters/service-manager.ts";
import { loadConfig } from "../config.ts";
import { type Command, type Environment, UsageError } from "./command.ts";

/** Longer than the server itself takes, so that the manager need not kill it. */
const graceSeconds = 30;

export const service: Command = {
  about: "Keep the server running: at login, after a crash, and after a reboot",
  usage: [
    "service install [--print]",
    "service uninstall",
    "service status",
    "service logs",
    "service restart",
  ],
  details: [
    "A service of this account's own, by systemd or launchd. install keeps the settings that it is",
    "given as flags; doing it again upgrades in place. At each start it asks the login shell for its",
    "PATH, where claude is looked for. --print shows the file and changes nothing. uninstall leaves",
    "the data.",
    "With systemd the server stops when nobody is logged in, unless lingering is on, which install",
    'tries: "loginctl enable-linger".',
  ],
  async run(argv, env) {
    const { flags, words, settings } = splitArguments(argv, { json: "switch", print: "switch" });
    const [action = "", ...more] = words;
    const manager = managerFor(settings, env);
    if (more.length > 0 || !Object.hasOwn(actions, action))
      throw new UsageError("Cannot read the command: see service --help");
    if (flags.has("print")) {
      console.log(flags.has("json") ? JSON.stringify(manager) : manager.text);
      return 0;
    }
    return actions[action]?.(manager, settings, env) ?? 2;
  },
};

const actions: Readonly<
  Record<string, (manager: ServiceManager, settings: readonly string[], env: Environment) => number>
> = {
  install(manager) {
    const replaced = writeService(manager);
    for (const argv of manager.install) must(argv);
    console.log(`${replaced ? "Upgraded" : "Installed"}: ${manager.file}`);
    if (process.platform === "darwin" || run(["loginctl", "enable-linger"]) === 0) return 0;
    console.log(
      'It stops when you log out: lingering could not be turned on; "loginctl enable-linger" does it',
    );
    return 0;
  },
  uninstall(manager, settings, env) {
    for (const argv of manager.uninstall) run(argv);
    const { dataDir } = loadConfig(settings, env, { serving: false });
    console.log(
      removeService(manager)
        ? `Removed: ${manager.file}\nThe data is left in ${dataDir}`
        : "There is no service to remove",
    );
    return 0;
  },
  restart(manager) {
    for (const argv of manager.restart) must(argv);
    return 0;
  },
  status: ({ status }) => run(status),
  logs: ({ logs }) => run(logs),
};

function managerFor(settings: readonly string[], env: Environment): ServiceManager {
  const { shutdownTimeout } = loadConfig(settings, env);
  const home = env["HOME"] || homedir();
  const configHome = env["XDG_CONFIG_HOME"] ?? "";
  const options = {
    home,
    configHome: isAbsolute(configHome) ? configHome : join(home, ".config"),
    uid: process.getuid?.() ?? 0,
    command: [...program(), "serve", ...absolute(settings)],
    stopSeconds: Math.ceil(shutdownTimeout / 1000) + graceSeconds,
  };
  return process.platform === "darwin" ? launchd(options) : systemd(options);
}

/** Bun alone would run what a `bunfig.toml` says, and take settings of an `.env`, where it is started. */
const closed = ["--no-env-file", "--config=/dev/null"];

/** This very program: compiled, or Bun and the source. */
function program(): string[] {
  const compiled = Bun.main.startsWith("/$bunfs/");
  return compiled ? [process.execPath] : [process.execPath, ...closed, Bun.main];
}

/** A service is started elsewhere, so files are named in full. */
function absolute(settings: readonly string[]): string[] {
  return settings.map((word, at) => {
    const before = settings[at - 1];
    const path = before === "--config" || before === "--data-dir";
    const [, flag, value] = /^(--(?:config|data-dir)=)(.+)$/s.exec(word) ?? [];
    if (flag && value) return `${flag}${resolve(value)}`;
    return path ? resolve(word) : word;
  });
}

function must(argv: readonly string[]): void {
  const code = run(argv);
  if (code !== 0) throw new Error(`Cannot go on: "${argv.join(" ")}" ended with ${code}`);
}

function run(argv: readonly string[]): number {
  const [name = ""] = argv;
  if (!Bun.which(name)) throw new Error(`Cannot manage a service: there is no ${name} here`);
  return Bun.spawnSync([...argv], { stdio: ["ignore", "inherit", "inherit"] }).exitCode;
}
