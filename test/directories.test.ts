import { afterAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bootId } from "../src/adapters/boot-id.ts";
import { openDirectories } from "../src/adapters/directories.ts";
import { Fault } from "../src/contract/errors.ts";

const root = realpathSync(mkdtempSync(join(tmpdir(), "directories-")));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const at = (...parts: string[]): string => join(root, ...parts);
for (const folder of [
  "home/.claude/projects",
  "home/.config/pocket-agent",
  "home/.ssh",
  "home/work/app/src",
  "home/work/app10",
  "home/.sshd",
  "home/work/..hidden",
  "home/work/~tilde",
  "home/work/with space",
  "home/work/ümläut-日本-🚀",
  "home/work/a:b'c\"d",
  "data/projects",
  "database",
  "claude-elsewhere/plugins",
]) {
  mkdirSync(at(folder), { recursive: true });
}
writeFileSync(at("home/work/file"), "");
symlinkSync(at("home/work/app"), at("link-to-app"));
symlinkSync(at("data"), at("link-to-data"));
symlinkSync(at("nowhere"), at("dangling"));
symlinkSync(at("round"), at("round"));

const rules = {
  ownFolders: [at("data"), at("data/certs"), at("home/.config/pocket-agent")],
  roots: null,
  environment: { HOME: at("home"), CLAUDE_CONFIG_DIR: at("claude-elsewhere") },
};
const directories = openDirectories(rules);

function refusal(path: string, among = directories): string {
  try {
    among.resolve(path);
  } catch (error) {
    expect(error).toBeInstanceOf(Fault);
    if (!(error instanceof Fault)) throw error;
    expect(error.code).toBe("INVALID_PATH");
    return error.message;
  }
  return "accepted";
}

const accepted: [given: string, resolved: string][] = [
  ["home/work/app", "home/work/app"],
  ["home/work/app/", "home/work/app"],
  ["home//work/./app", "home/work/app"],
  ["home/work/app/src", "home/work/app/src"],
  ["home/work/app10", "home/work/app10"],
  ["home/work", "home/work"],
  ["home/work/..hidden", "home/work/..hidden"],
  ["home/work/~tilde", "home/work/~tilde"],
  ["home/work/with space", "home/work/with space"],
  ["home/work/ümläut-日本-🚀", "home/work/ümläut-日本-🚀"],
  ["home/work/a:b'c\"d", "home/work/a:b'c\"d"],
  ["link-to-app", "home/work/app"],
  ["link-to-app/src", "home/work/app/src"],
  ["database", "database"],
  ["home/.sshd", "home/.sshd"],
];

const refused: [given: string, why: string][] = [
  ["", "it is not absolute"],
  ["relative/path", "it is not absolute"],
  ["./here", "it is not absolute"],
  ["file:///tmp", "it is not absolute"],
  ["~", "a leading ~ is not expanded"],
  ["~/work", "a leading ~ is not expanded"],
  ["~root", "a leading ~ is not expanded"],
  [`${at("home/work/app")}/../app10`, 'it has a ".." in it'],
  [`${at("home/work/app")}/..`, 'it has a ".." in it'],
  ["/..", 'it has a ".." in it'],
  [`${at("home/work/app")}\0`, "it has a control character in it"],
  [`${at("home/work/app")}\n`, "it has a control character in it"],
  [`${at("home/work")}\u001b[31m/app`, "it has a control character in it"],
  [`${at("home/work")}\u007f`, "it has a control character in it"],
  [`${at("home/work")}\u009b`, "it has a control character in it"],
  ["/", "it is the root of the file system"],
  ["//", "it is the root of the file system"],
  [at("home/work/missing"), "it does not exist"],
  [at("dangling"), "it does not exist"],
  [at("home/work/file"), "it is not a directory"],
  [at("home/work/file/below"), "it is not a directory"],
  [at("round"), "its symbolic links go round in circles"],
  [`/${"x".repeat(300)}`, "it is too long"],
  [at(), "it holds the server's own files"],
  [at("data"), "it holds the server's own files"],
  [at("data/projects"), "it lies in the folder of the server's own files"],
  [at("link-to-data"), "it holds the server's own files"],
  [at("link-to-data/projects"), "it lies in the folder of the server's own files"],
  [at("home/.config"), "it holds the server's own files"],
  [at("home/.claude"), "it holds the agent's own files"],
  [at("home/.claude/projects"), "it lies in the folder of the agent's own files"],
  [at("claude-elsewhere"), "it holds the agent's own files"],
  [at("claude-elsewhere/plugins"), "it lies in the folder of the agent's own files"],
  [at("home/.ssh"), "it holds SSH keys"],
  [at("home"), "it holds the server's own files"],
];

describe("Directories.resolve", () => {
  test.each(accepted)("accepts %p", (given, resolved) => {
    const { dev, ino, uid } = statSync(at(resolved));
    const path = at(resolved);
    const found = { path, dev, ino, uid, boot_id: bootId() };
    expect(directories.resolve(`${root}/${given}`)).toEqual(found);
  });

  test.each(refused)("refuses %p: %s", (given, why) => {
    const message = refusal(given);
    expect(message).toStartWith(`Cannot use ${JSON.stringify(given)}: ${why}`);
    if (!given.includes(at("data"))) expect(message).not.toContain(at("data"));
  });

  test("refuses a home directory whose secret folders do not exist yet", () => {
    mkdirSync(at("bare-home"));
    symlinkSync(at("bare-home"), at("link-to-bare-home"));
    const bare = openDirectories({
      ownFolders: [],
      roots: null,
      environment: { HOME: at("link-to-bare-home") },
    });
    expect(refusal(at("bare-home"), bare)).toEndWith("it holds the agent's own files");
  });

  test("accepts only what lies inside of a root, after symbolic links on both sides", () => {
    symlinkSync(at("home/work"), at("link-to-work"));
    const rooted = openDirectories({ ...rules, roots: [at("link-to-work"), at("later")] });
    expect(refusal(at("home/work"), rooted)).toBe("accepted");
    expect(refusal(at("link-to-app/src"), rooted)).toBe("accepted");
    expect(refusal(at("database"), rooted)).toContain("projects.roots");
    mkdirSync(at("later/project"), { recursive: true });
    expect(refusal(at("later/project"), rooted)).toBe("accepted");
    mkdirSync(at("later10"));
    expect(refusal(at("later10"), rooted)).toContain("projects.roots");
  });

  test.each([0o600, 0o300])("refuses what the account may not enter or list: mode %p", (mode) => {
    const closed = mkdtempSync(at("closed-"));
    chmodSync(closed, mode);
    expect(asOrdinaryUser(closed)).toEqual([
      `Cannot use "${closed}": the server's account may not enter it`,
      false,
    ]);
  });
});

/** Runs a program that may mount what nobody else sees; some containers forbid that. */
const apart = ["unshare", "--user", "--map-root-user", "--mount"];
const mayMount = process.platform === "linux" && Bun.spawnSync([...apart, "true"]).exitCode === 0;

/** Which of some directories a client can work in, or look into, while `folder` is at `place` too. */
function withMount(folder: string, place: string, paths: readonly string[]): unknown {
  const script = `
    import { openDirectories } from ${JSON.stringify(join(import.meta.dir, "../src/adapters/directories.ts"))};
    const directories = openDirectories(${JSON.stringify(rules)});
    const reasonOf = ({ message }) => message.replace(/^.*": /, "");
    const found = await Promise.all(${JSON.stringify(paths)}.map(async (path) => {
      let worked = "accepted";
      try {
        directories.resolve(path);
      } catch (error) {
        worked = reasonOf(error);
      }
      return [worked, await directories.list(path).then(() => "listed", reasonOf)];
    }));
    console.log(JSON.stringify(found));
  `;
  mkdirSync(place);
  const inside = 'mount --bind "$1" "$2" && exec "$3" -e "$4"';
  const command = [...apart, "sh", "-c", inside, "sh", folder, place, process.execPath, script];
  const child = Bun.spawnSync(command);
  expect(child.stderr.toString()).toBe("");
  return JSON.parse(child.stdout.toString());
}

describe.if(mayMount)("what is mounted at a second place", () => {
  test("is refused there as it is at the first", () => {
    const place = at("mounted");
    const paths = [place, `${place}/.ssh`, `${place}/.claude/projects`, `${place}/work/app`];
    expect(withMount(at("home"), place, paths)).toEqual([
      ["it holds the server's own files", "listed"],
      ["it holds SSH keys", "it is the folder of SSH keys"],
      [
        "it lies in the folder of the agent's own files",
        "it lies in the folder of the agent's own files",
      ],
      ["accepted", "listed"],
    ]);
  });
});

describe("Directories.available", () => {
  test("tells whether a directory is there, and never throws", () => {
    expect(directories.available(at("home/work/app"))).toBe(true);
    for (const path of [at("home/work/file"), at("missing"), at("round"), "\0", ""]) {
      expect(directories.available(path)).toBe(false);
    }
  });
});

/** Permissions mean nothing to root, as whom tests in containers run. */
function asOrdinaryUser(path: string): unknown {
  chmodSync(root, 0o755);
  const script = `
    import { openDirectories } from ${JSON.stringify(join(import.meta.dir, "../src/adapters/directories.ts"))};
    const directories = openDirectories({ ownFolders: [], roots: null, environment: process.env });
    if (process.getuid() === 0) process.setuid(65534);
    let message = "accepted";
    try {
      directories.resolve(process.argv[1]);
    } catch (error) {
      message = error.message;
    }
    console.log(JSON.stringify([message, directories.available(process.argv[1])]));
  `;
  const { stdout } = Bun.spawnSync([process.execPath, "-e", script, path]);
  return JSON.parse(stdout.toString());
}
