/** Whoever sits where the local socket belongs gets to hear nothing, and is not believed. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, lchownSync, mkdirSync, renameSync, symlinkSync } from "node:fs";
import { createServer } from "node:net";
import { basename, dirname, join } from "node:path";
import { controlPath } from "../src/adapters/control-path.ts";
import { scratch } from "./support/app.ts";
import { runCommand } from "./support/cli.ts";

setDefaultTimeout(60_000);

const nobody = 65_534;
const isRoot = process.getuid?.() === 0;

let stack: AsyncDisposableStack;
let home: string;
/** Where the server of this data would listen, and the folder of it. */
let path: string;
let folder: string;
let env: Record<string, string>;
let heard: string;

/** Somebody listens there, and answers as a server would. */
beforeEach(async () => {
  stack = new AsyncDisposableStack();
  home = await scratch(stack);
  folder = join(home, `pocket-agent-${process.getuid?.()}`);
  mkdirSync(folder, { mode: 0o700 });
  env = { PA_DATA_DIR: join(home, "d".repeat(120)), TMPDIR: home };
  path = join(folder, basename(controlPath(env["PA_DATA_DIR"] ?? "", {})));
  heard = "";
  const device = { id: "x", name: "nightly", scope: "full" };
  const result = { device, devices: [device], token: "pat_SQUATTER", expires_at: "2030-01-01" };
  const squatter = createServer((socket) =>
    socket.on("data", (chunk) => {
      heard += chunk.toString();
      socket.end(`${JSON.stringify({ result })}\n`);
    }),
  );
  const { promise, resolve } = Promise.withResolvers<void>();
  squatter.listen(path, resolve);
  await promise;
  stack.defer(() => void squatter.close());
});

afterEach(() => stack.disposeAsync());

const run = (...argv: string[]) => runCommand(argv, { home, env });

async function expectRefusal(): Promise<void> {
  const why = "others could have made the socket in";
  for (const argv of [
    ["token", "nightly"],
    ["run", home, "say:hello"],
    ["logs", "x"],
  ]) {
    const { code, out, err } = await run(...argv);
    expect({ code, out }).toEqual({ code: 1, out: "" });
    expect(err).toContain(`Cannot speak to the server: ${why} "${dirname(path)}"`);
  }
  const { findings } = JSON.parse((await run("doctor", "--json")).out);
  expect(findings).toContainEqual(
    expect.objectContaining({
      status: "fail",
      what: "local socket",
      text: expect.stringContaining(why),
    }),
  );
  expect(heard).toBe("");
}

test("one that listens in a folder of this account's alone is taken for the server", async () => {
  expect(await run("token", "nightly")).toMatchObject({ code: 0 });
  expect(heard).toContain("tokens.issue");
});

test("nobody is spoken to in a folder that others may enter", async () => {
  chmodSync(folder, 0o755);
  await expectRefusal();
});

describe.if(isRoot)("nobody is spoken to", () => {
  test("in a folder of another account's", async () => {
    lchownSync(folder, nobody, nobody);
    await expectRefusal();
  });

  test("behind a link of another account's", async () => {
    renameSync(folder, `${folder}-real`);
    symlinkSync(`${folder}-real`, folder);
    expect(await run("token", "nightly")).toMatchObject({ code: 0 });
    heard = "";
    lchownSync(folder, nobody, nobody);
    await expectRefusal();
  });

  test("at a socket of another account's", async () => {
    lchownSync(path, nobody, nobody);
    await expectRefusal();
  });
});
