import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, existsSync, readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { launchd, systemd } from "../src/adapters/service-manager.ts";
import { AgentLog } from "./support/agent-log.ts";
import { scratch } from "./support/app.ts";
import { Client } from "./support/client.ts";
import { ServerProcess } from "./support/server-process.ts";
import { run } from "./support/ssh-lab.ts";

setDefaultTimeout(60_000);

const main = join(import.meta.dir, "..", "src", "main.ts");
const awkward = {
  home: "/home/a b",
  configHome: "/home/a b/.config",
  uid: 1000,
  command: ['/opt/it\'s a "pa"', "serve", "--data-dir", "/data/100%/$HOME\\x", "--x=<&>"],
  stopSeconds: 60,
};

/** A home in which the manager's programs are stand-ins that note how they are called. */
async function machine(stack: AsyncDisposableStack) {
  const home = await scratch(stack);
  const bin = join(home, "bin");
  const calls = join(home, "calls");
  await mkdir(bin);
  for (const name of ["systemctl", "journalctl", "loginctl", "launchctl"]) {
    await Bun.write(join(bin, name), `#!/bin/sh\necho "${name} $*" >> '${calls}'\n`);
    chmodSync(join(bin, name), 0o755);
  }
  return {
    home,
    calls: () => (existsSync(calls) ? readFileSync(calls, "utf8").trim().split("\n") : []),
    service: async (...argv: string[]) => {
      const child = Bun.spawn([process.execPath, main, "service", ...argv], {
        cwd: home,
        env: { PATH: `${bin}:/usr/bin:/bin`, HOME: home },
        stdin: "ignore",
        stdout: "pipe",
        stderr: "pipe",
      });
      const [code, out, err] = await Promise.all([
        child.exited,
        child.stdout.text(),
        child.stderr.text(),
      ]);
      return { code, out, err };
    },
  };
}

describe.if(process.platform === "linux")("service, with systemd", () => {
  const unit = ".config/systemd/user/pocket-agent.service";

  test("install writes the unit and starts it; again it upgrades; uninstall leaves the data", async () => {
    await using stack = new AsyncDisposableStack();
    const { home, service, calls } = await machine(stack);
    const file = join(home, unit);
    const { code, out } = await service("install", "--port", "9000", "--data-dir=mine");
    expect({ code, out }).toEqual({ code: 0, out: `Installed: ${file}\n` });
    const text = readFileSync(file, "utf8");
    expect(text).toContain(`"${main}" "serve" "--port" "9000" "--data-dir=${home}/mine"`);
    expect(calls()).toEqual([
      "systemctl --user daemon-reload",
      "systemctl --user enable pocket-agent.service",
      "systemctl --user restart pocket-agent.service",
      "loginctl enable-linger",
    ]);
    expect((await service("install", "--port", "9001")).out).toStartWith("Upgraded");
    expect(readFileSync(file, "utf8")).toContain('"9001"');
    for (const action of ["status", "logs", "restart"])
      expect(await service(action)).toMatchObject({ code: 0 });
    const gone = await service("uninstall");
    expect(gone.out).toContain(`The data is left in ${home}/.local/share/pocket-agent`);
    expect(existsSync(file)).toBe(false);
    expect((await service("uninstall")).out).toContain("no service");
  });

  test("--print shows the file and changes nothing", async () => {
    await using stack = new AsyncDisposableStack();
    const { home, service, calls } = await machine(stack);
    const { code, out } = await service("install", "--print");
    expect(code).toBe(0);
    for (const line of ["Type=notify", "KillMode=mixed", "OOMPolicy=continue", "WatchdogSec=60"])
      expect(out).toContain(`${line}\n`);
    expect(existsSync(join(home, unit))).toBe(false);
    expect(calls()).toEqual([]);
  });

  test("settings that cannot be, and a machine without the manager, are errors", async () => {
    await using stack = new AsyncDisposableStack();
    const { home, service } = await machine(stack);
    expect(await service("install", "--port", "many")).toMatchObject({ code: 2 });
    expect(await service("start")).toMatchObject({ code: 2 });
    const child = Bun.spawn([process.execPath, main, "service", "install"], {
      env: { PATH: "/nowhere", HOME: home },
      stderr: "pipe",
    });
    expect(await child.stderr.text()).toContain("there is no systemctl here");
    expect(await child.exited).toBe(1);
  });

  test("the unit is what systemd reads, with awkward names too", async () => {
    await using stack = new AsyncDisposableStack();
    const folder = await scratch(stack);
    const file = join(folder, "pocket-agent.service");
    const command = [process.execPath, "serve", ...awkward.command.slice(2)];
    await Bun.write(file, systemd({ ...awkward, command }).text);
    const verified = Bun.spawnSync(["systemd-analyze", "verify", "--user", file], {
      env: { ...process.env, XDG_RUNTIME_DIR: folder, HOME: folder },
      stderr: "pipe",
    });
    expect(verified.stderr.toString()).toBe("");
    expect(verified.exitCode).toBe(0);
    // The check sees what is wrong.
    await Bun.write(file, "[Service]\nType=notify\nExecStart=/nowhere/at/all\n");
    const wrong = Bun.spawnSync(["systemd-analyze", "verify", "--user", file], {
      env: { ...process.env, XDG_RUNTIME_DIR: folder, HOME: folder },
      stderr: "pipe",
    });
    expect(wrong.exitCode).not.toBe(0);
  });
});

test("launchd's file is a property list with the words as they are", () => {
  const { text, file } = launchd(awkward);
  const script = "import plistlib,sys,json; print(json.dumps(plistlib.load(sys.stdin.buffer)))";
  const plist = JSON.parse(run(["python3", "-c", script], text));
  expect(file).toBe("/home/a b/Library/LaunchAgents/pocket-agent-server.plist");
  expect(plist).toMatchObject({
    ProgramArguments: awkward.command,
    KeepAlive: { SuccessfulExit: false },
    RunAtLoad: true,
  });
});

/** Prints each datagram that comes to a unix socket as one line of JSON. */
const receiver = (path: string) => `
import json, os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(${JSON.stringify(path)}.replace("@", "\\0", 1))
print(json.dumps("bound"), flush=True)
while True:
    print(json.dumps(s.recv(4096).decode()), flush=True)
`;

describe.if(process.platform === "linux")("the service manager", () => {
  test.each(["path", "abstract"])(
    "is told by a %s socket: ready, alive, stopping",
    async (kind) => {
      await using stack = new AsyncDisposableStack();
      const home = await scratch(stack);
      const path =
        kind === "path" ? join(home, "notify") : `@pocket-agent-test-${crypto.randomUUID()}`;
      const child = Bun.spawn(["python3", "-c", receiver(path)], { stdout: "pipe" });
      stack.defer(() => child.kill());
      const told: string[] = [];
      const decoder = new TextDecoder();
      let wake = Promise.withResolvers<void>();
      void (async () => {
        let text = "";
        for await (const chunk of child.stdout) {
          const lines = (text + decoder.decode(chunk, { stream: true })).split("\n");
          text = lines.pop() ?? "";
          told.push(...lines.map((line) => JSON.parse(line)));
          wake.resolve();
          wake = Promise.withResolvers();
        }
      })();
      const until = async (part: string) => {
        while (!told.some((text) => text.includes(part))) await wake.promise;
      };
      await until("bound");
      const settings = { NOTIFY_SOCKET: path, WATCHDOG_USEC: "200000" };
      const server = stack.use(await ServerProcess.start({ home, settings }));
      await until("READY=1");
      expect(told.at(1)).toBe(
        `READY=1\nMAINPID=${server.pid}\nSTATUS=Listening on ${server.url.href}`,
      );
      await until("WATCHDOG=1");
      await mkdir(join(home, "work"));
      await using client = await Client.connect(server.url);
      await client.run(await client.create(join(home, "work")), "say:hello");
      const { env } = new AgentLog(home).last();
      expect(env.filter((name) => /^(NOTIFY|WATCHDOG)_/.test(name))).toEqual([]);
      await server.stop();
      await until("STOPPING=1");
    },
  );
});
