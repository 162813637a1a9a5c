import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { serviceLabel } from "./claude/search-path.ts";

/** How a program is kept running on this system. */
export interface ServiceManager {
  /** The file that describes the service. */
  readonly file: string;
  /** What is in it. */
  readonly text: string;
  /** Commands that make it take effect, in order. */
  readonly install: readonly Argv[];
  readonly uninstall: readonly Argv[];
  readonly restart: readonly Argv[];
  readonly status: Argv;
  readonly logs: Argv;
}

type Argv = readonly string[];

export interface ServiceOptions {
  readonly home: string;
  readonly configHome: string;
  readonly uid: number;
  /** The program and its arguments. */
  readonly command: Argv;
  /** Seconds that the server takes to stop at most. */
  readonly stopSeconds: number;
}

const user = (...argv: string[]): Argv => ["systemctl", "--user", ...argv];
const unit = "pocket-agent.service";

/** The user's own systemd. */
export function systemd(options: ServiceOptions): ServiceManager {
  return {
    file: join(options.configHome, "systemd", "user", unit),
    text: unitText(options),
    install: [user("daemon-reload"), user("enable", unit), user("restart", unit)],
    uninstall: [user("disable", "--now", unit)],
    restart: [user("restart", unit)],
    status: user("status", "--no-pager", unit),
    logs: ["journalctl", "--user", "--no-pager", "-n", "200", "-u", unit],
  };
}

/** The user's own launchd. */
export function launchd(options: ServiceOptions): ServiceManager {
  const { home, uid } = options;
  const file = join(home, "Library", "LaunchAgents", `${serviceLabel}.plist`);
  const target = `gui/${uid}`;
  return {
    file,
    text: plistText(options),
    install: [
      // There is none the first time; then this fails, which does not matter.
      ["sh", "-c", `launchctl bootout ${target}/${serviceLabel} 2>/dev/null; true`],
      ["launchctl", "bootstrap", target, file],
    ],
    uninstall: [["launchctl", "bootout", `${target}/${serviceLabel}`]],
    restart: [["launchctl", "kickstart", "-k", `${target}/${serviceLabel}`]],
    status: ["launchctl", "print", `${target}/${serviceLabel}`],
    logs: ["tail", "-n", "200", logFile(home)],
  };
}

/** Writes the service's file as a whole, and gives whether it was there before. */
export function writeService({ file, text }: ServiceManager): boolean {
  const replaced = existsSync(file);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text, { mode: 0o644 });
  return replaced;
}

/** Removes it; gives whether it was there. */
export function removeService({ file }: ServiceManager): boolean {
  const there = existsSync(file);
  rmSync(file, { force: true });
  return there;
}

/**
 * No UMask= and no sandbox: the agent's files are the user's own, and it does what the user may.
 * OOMPolicy: a tool that takes all memory must not take the server along.
 */
function unitText({ command, stopSeconds }: ServiceOptions): string {
  return `[Unit]
Description=Pocket Agent Server
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart=${command.map(unitWord).join(" ")}
Restart=on-failure
RestartSec=2
WatchdogSec=60
TimeoutStartSec=60
TimeoutStopSec=${stopSeconds}
KillMode=mixed
OOMPolicy=continue
LimitNOFILE=65536

[Install]
WantedBy=default.target
`;
}

/** A word as systemd reads it: see "Command lines" in systemd.service(5). */
function unitWord(word: string): string {
  const escaped = word.replaceAll("\\", "\\\\").replaceAll('"', '\\"');
  return `"${escaped.replaceAll("%", "%%").replaceAll("$", "$$$$")}"`;
}

function plistText({ command, home, stopSeconds }: ServiceOptions): string {
  const log = logFile(home);
  return `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key>
  <string>${serviceLabel}</string>
  <key>ProgramArguments</key>
  <array>
${command.map((word) => `    <string>${xml(word)}</string>`).join("\n")}
  </array>
  <key>RunAtLoad</key>
  <true/>
  <key>KeepAlive</key>
  <dict>
    <key>SuccessfulExit</key>
    <false/>
  </dict>
  <key>ThrottleInterval</key>
  <integer>5</integer>
  <key>ExitTimeOut</key>
  <integer>${stopSeconds}</integer>
  <key>ProcessType</key>
  <string>Interactive</string>
  <key>StandardOutPath</key>
  <string>${xml(log)}</string>
  <key>StandardErrorPath</key>
  <string>${xml(log)}</string>
</dict>
</plist>
`;
}

const logFile = (home: string): string => join(home, "Library", "Logs", "pocket-agent.log");

function xml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
