import { afterAll, afterEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { holderOf, lockDataDir } from "../src/adapters/data-lock.ts";

const root = mkdtempSync(join(tmpdir(), "data-lock-"));
const children = new Set<Bun.Subprocess>();
afterEach(async () => {
  for (const child of children) {
    child.kill("SIGKILL");
    await child.exited;
  }
  children.clear();
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Locks what it is told to, one directory per line, keeps all locks, and says how each went. */
const contenderScript = `
import { lockDataDir } from ${JSON.stringify(join(import.meta.dir, "../src/adapters/data-lock.ts"))};
const held = [];
for await (const directory of console) {
  try {
    held.push(lockDataDir(directory));
    console.log("won");
  } catch (error) {
    console.log(error.message);
  }
}
`;

function contender() {
  const child = Bun.spawn([process.execPath, "-e", contenderScript], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  children.add(child);
  const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  const answer = async (): Promise<string> => {
    while (!text.includes("\n")) {
      const { done, value } = await reader.read();
      if (done) throw new Error("the contender ended");
      text += value;
    }
    const end = text.indexOf("\n");
    const line = text.slice(0, end);
    text = text.slice(end + 1);
    return line;
  };
  const ask = async (directory: string): Promise<string> => {
    await child.stdin.write(`${directory}\n`);
    await child.stdin.flush();
    return answer();
  };
  return { child, ask };
}

const lockFile = (directory: string): string => join(directory, "server.lock");

describe("lockDataDir", () => {
  test("makes the directory for its owner alone, and leaves nothing but the directory", () => {
    const directory = join(root, "fresh", "data");
    const lock = lockDataDir(directory);
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    expect(readdirSync(directory)).toEqual(["server.lock"]);
    lock[Symbol.dispose]();
    expect(readdirSync(directory)).toEqual([]);
  });

  test("closes a directory that others could look into", () => {
    const directory = join(root, "open");
    mkdirSync(directory);
    chmodSync(directory, 0o755);
    using _ = lockDataDir(directory);
    expect(statSync(directory).mode & 0o777).toBe(0o700);
  });

  test("refuses a second server, and names the first", async () => {
    const directory = join(root, "held");
    const first = contender();
    expect(await first.ask(directory)).toBe("won");
    expect(() => lockDataDir(directory)).toThrow(`process ${first.child.pid}, since 2`);
    expect(() => lockDataDir(directory)).toThrow(`"kill ${first.child.pid}"`);
  });

  test("takes over from a process that was killed", async () => {
    const directory = join(root, "killed");
    const first = contender();
    expect(await first.ask(directory)).toBe("won");
    first.child.kill("SIGKILL");
    await first.child.exited;
    using _ = lockDataDir(directory);
    expect(holderOf(directory)).toBe(process.pid);
  });

  test("takes over from a process whose pid belongs to another one now", () => {
    const directory = join(root, "reused");
    mkdirSync(directory);
    symlinkSync(`${process.ppid} long ago 01234567`, lockFile(directory));
    expect(holderOf(directory)).toBeUndefined();
    using _ = lockDataDir(directory);
    expect(holderOf(directory)).toBe(process.pid);
  });

  test.each(["", "\0\0\0\0", "1", "-1 x 01234567", "0 x 01234567"])(
    "takes over what a crash of the machine left: %p",
    (text) => {
      const directory = mkdtempSync(join(root, "torn-"));
      writeFileSync(lockFile(directory), text);
      using _ = lockDataDir(directory);
      expect(readdirSync(directory)).toEqual(["server.lock"]);
    },
  );

  test("takes over when an earlier take-over was cut short, too", async () => {
    const directory = join(root, "cut-short");
    const dead = contender();
    expect(await dead.ask(directory)).toBe("won");
    const claim = `${lockFile(directory)}.${new Bun.CryptoHasher("sha1")
      .update(readlinkSync(lockFile(directory)))
      .digest("hex")}`;
    symlinkSync(readlinkSync(lockFile(directory)), claim);
    dead.child.kill("SIGKILL");
    await dead.child.exited;
    using _ = lockDataDir(directory);
    expect(readdirSync(directory)).toEqual(["server.lock"]);
  });

  test("does not remove a lock that is not its own any more", () => {
    const directory = join(root, "stolen");
    const lock = lockDataDir(directory);
    unlinkSync(lockFile(directory));
    symlinkSync("somebody else's", lockFile(directory));
    lock[Symbol.dispose]();
    expect(readdirSync(directory)).toEqual(["server.lock"]);
  });

  test("lets exactly one of two processes have a stale lock, fifty times over", async () => {
    const [first, second] = [contender(), contender()];
    for (let round = 0; round < 50; round += 1) {
      const directory = join(root, `race-${round}`);
      mkdirSync(directory);
      symlinkSync(
        `${process.ppid} long ago ${String(round).padStart(8, "0")}`,
        lockFile(directory),
      );
      const answers = await Promise.all([first.ask(directory), second.ask(directory)]);
      const winner = answers.indexOf("won");
      expect(winner).toBeGreaterThanOrEqual(0);
      const pid = [first, second][winner]?.child.pid;
      expect(answers[1 - winner]).toContain(`another server (process ${pid},`);
      expect(holderOf(directory)).toBe(pid);
      expect(readdirSync(directory)).toEqual(["server.lock"]);
    }
  });

  test("refuses what is not a directory of this user", () => {
    const file = join(root, "file");
    writeFileSync(file, "");
    expect(() => lockDataDir(file)).toThrow(`Cannot use the data directory "${file}"`);
    const link = join(root, "link");
    symlinkSync(process.getuid?.() === 0 ? foreignDirectory() : "/", link);
    expect(() => lockDataDir(link)).toThrow("it belongs to another user");
  });
});

/** Root owns nearly everything, so what belongs to somebody else must be made. */
function foreignDirectory(): string {
  const directory = mkdtempSync(join(root, "foreign-"));
  Bun.spawnSync(["chown", "65534", directory]);
  return directory;
}
