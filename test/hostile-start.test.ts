import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, rmSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { scratch } from "./support/app.ts";

setDefaultTimeout(60_000);

const main = join(import.meta.dir, "..", "src", "main.ts");
const stack = new AsyncDisposableStack();
let home = "";
let cwd = "";
let marker = "";

/** A directory as somebody would lay it out who wants to run code, and to be let in, where it is entered. */
beforeAll(async () => {
  home = await scratch(stack);
  cwd = join(home, "clone");
  marker = join(home, "marker");
  await mkdir(cwd);
  await Bun.write(join(cwd, "bunfig.toml"), 'preload = ["./preload.ts"]\n');
  const preload = `require("node:fs").writeFileSync(${JSON.stringify(marker)}, "")`;
  await Bun.write(join(cwd, "preload.ts"), preload);
  await Bun.write(join(cwd, ".env"), "PA_AUTH_MODE=none\nPA_INSECURE=true\n");
});
afterAll(() => stack.disposeAsync());

/** Asks a program for its settings there, and says who may come in, and whether anything else was run. */
async function startedAs(program: readonly string[]) {
  rmSync(marker, { force: true });
  const child = Bun.spawn([...program, "config", "show"], {
    cwd,
    env: { PATH: process.env["PATH"], HOME: home },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  const [, mode] = /^auth\.mode\s+(\S+)/m.exec(await child.stdout.text()) ?? [];
  return { mode, ran: existsSync(marker) };
}

describe("the sources, started in a hostile directory,", () => {
  test("run nothing and take no settings from there, by their own name", async () => {
    expect(await startedAs([main])).toEqual({ mode: "ssh", ran: false });
  });

  test.if(process.platform === "linux")("nor as the service that they install", async () => {
    const child = Bun.spawn([process.execPath, main, "service", "install", "--print"], {
      env: { PATH: "/usr/bin:/bin", HOME: home },
      stdout: "pipe",
    });
    const [, words = ""] = /^ExecStart=(.*) "serve"$/m.exec(await child.stdout.text()) ?? [];
    expect(await startedAs(JSON.parse(`[${words.replaceAll('" "', '","')}]`))).toEqual({
      mode: "ssh",
      ran: false,
    });
  });

  test("would do both, were Bun not kept from it", async () => {
    expect(await startedAs([process.execPath, main])).toEqual({ mode: "none", ran: true });
  });
});
