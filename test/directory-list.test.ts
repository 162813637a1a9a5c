import { afterAll, expect, test } from "bun:test";
import { chmodSync, mkdirSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { openDirectories } from "../src/adapters/directories.ts";
import { Fault } from "../src/contract/errors.ts";
import { serverMessages } from "../src/contract/messages.ts";
import type { Directories } from "../src/core/ports.ts";
import { testApp } from "./support/app.ts";

const root = realpathSync(mkdtempSync(join(tmpdir(), "directory-list-")));
afterAll(() => rmSync(root, { recursive: true, force: true }));

const at = (...parts: string[]): string => join(root, ...parts);
const make = (...folders: string[]): void => {
  for (const folder of folders) mkdirSync(at(folder), { recursive: true });
};
make("home/.claude/projects", "home/.config/pocket-agent/certs", "home/.ssh", "home/.sshd");
make("home/work/app/src", "data/projects", "elsewhere/inside", "claude-elsewhere");
symlinkSync(at("home"), at("link-to-home"));
symlinkSync(at("nowhere"), at("nowhere-link"));
symlinkSync(at("round"), at("round"));
writeFileSync(at("file"), "");

const rules = {
  ownFolders: [at("data"), at("home/.config/pocket-agent")],
  roots: null,
  environment: { HOME: at("link-to-home"), CLAUDE_CONFIG_DIR: at("claude-elsewhere") },
};
const directories = openDirectories(rules);
const rooted = (...roots: string[]) => openDirectories({ ...rules, roots });

/** Lists, and holds the answer to its shape on the wire. */
async function list(path?: string, among: Directories = directories) {
  return v.parse(serverMessages.directory_list_response.data, await among.list(path));
}

async function names(path: string, among?: Directories): Promise<string[]> {
  return (await list(path, among)).entries.map(({ name }) => name);
}

async function refusal(path: string | undefined, among = directories): Promise<string> {
  const error: unknown = await among.list(path).then(
    () => undefined,
    (cause: unknown) => cause,
  );
  if (!(error instanceof Fault)) throw new Error(`Not refused with a Fault: ${String(error)}`);
  expect(error.code).toBe("INVALID_PATH");
  return error.message;
}

test("without a path the home folder is listed, under its real path", async () => {
  expect(await list()).toEqual({
    path: at("home"),
    parent: root,
    entries: [
      { name: "work", path: at("home/work") },
      { name: ".config", path: at("home/.config") },
      { name: ".sshd", path: at("home/.sshd") },
    ],
  });
});

test("directories come by name, numbers by value, whatever the case; hidden ones last", async () => {
  const shuffled = ["b", "a10", "A2", "a1", ".b", ".A", "Ä", "c c", "日本", "B", "a:'\""];
  make(...shuffled.map((name) => `order/${name}`));
  const visible = ["Ä", "a:'\"", "a1", "A2", "a10", "B", "b", "c c", "日本"];
  expect(await names(at("order"))).toEqual([...visible, ".A", ".b"]);
});

test("what is no directory is left out, and so are links that lead nowhere", async () => {
  make("mixed/folder");
  writeFileSync(at("mixed/file"), "");
  symlinkSync("folder", at("mixed/to-folder"));
  symlinkSync("to-folder", at("mixed/to-link"));
  symlinkSync("file", at("mixed/to-file"));
  symlinkSync("missing", at("mixed/dangling"));
  symlinkSync("loop", at("mixed/loop"));
  symlinkSync("file/below", at("mixed/below-a-file"));
  symlinkSync(".", at("mixed/self"));
  Bun.spawnSync(["mkfifo", at("mixed/pipe")]);
  expect((await list(at("mixed"))).entries).toEqual([
    { name: "folder", path: at("mixed/folder") },
    { name: "self", path: at("mixed") },
    { name: "to-folder", path: at("mixed/folder") },
    { name: "to-link", path: at("mixed/folder") },
  ]);
});

test("names that a client could not send back are left out", async () => {
  make("odd/plain", "odd/line\nbreak", "odd/es\u001bcape", "odd/c1\u009b");
  // The one name that no string of ours can make.
  Bun.spawnSync(["sh", "-c", `mkdir "$(printf '%s/odd/not-utf8-\\377' "$0")"`, root]);
  expect(await names(at("odd"))).toEqual(["plain"]);
});

test("folders that no project may lie in are left out, links to them too", async () => {
  symlinkSync(at("data"), at("elsewhere/data-link"));
  symlinkSync(at("home/.config/pocket-agent/certs"), at("elsewhere/certs-link"));
  expect(await names(at("elsewhere"))).toEqual(["inside"]);
  expect(await names(at("home/.config"))).toEqual([]);
  expect(await names(root)).not.toContain("data");
  expect(await names(root)).not.toContain("claude-elsewhere");
});

test.each([
  ["data", "it is the folder of the server's own files"],
  ["data/projects", "it lies in the folder of the server's own files"],
  ["home/.config/pocket-agent/certs", "it lies in the folder of the server's own files"],
  ["home/.ssh", "it is the folder of SSH keys"],
  ["link-to-home/.ssh", "it is the folder of SSH keys"],
  ["home/.claude/projects", "it lies in the folder of the agent's own files"],
  ["claude-elsewhere", "it is the folder of the agent's own files"],
  ["elsewhere/data-link/projects", "it lies in the folder of the server's own files"],
])("refuses to list %s: %s", async (given, why) => {
  expect(await refusal(at(given))).toBe(`Cannot list ${JSON.stringify(at(given))}: ${why}`);
});

test.each([
  ["", "it is not absolute"],
  ["relative", "it is not absolute"],
  ["~", "a leading ~ is not expanded; write the whole path"],
  ["~root/x", "a leading ~ is not expanded; write the whole path"],
  [`${root}/home/../data`, 'it has a ".." in it'],
  [`${root}\0`, "it has a control character in it"],
  [`${root}/\u009b`, "it has a control character in it"],
  [at("missing"), "it does not exist"],
  [at("nowhere-link"), "it does not exist"],
  [at("round"), "its symbolic links go round in circles"],
  [at("file"), "it is not a directory"],
  [at("file/below"), "it is not a directory"],
  [`/${"x".repeat(300)}`, "it is too long"],
])("refuses to list %j: %s", async (given, why) => {
  expect(await refusal(given)).toBe(`Cannot list ${JSON.stringify(given)}: ${why}`);
});

test("the root of the file system can be listed although it is no project", async () => {
  const { path, parent, entries } = await list("//");
  expect({ path, parent }).toEqual({ path: "/", parent: null });
  expect(entries).toContainEqual({ name: "usr", path: "/usr" });
});

test("with one root, that is where listing begins and ends", async () => {
  symlinkSync(at("elsewhere"), at("home/work/way-out"));
  symlinkSync(at("home/work/app"), at("home/work/way-in"));
  const one = rooted(at("link-to-home/work"));
  expect(await list(undefined, one)).toEqual({
    path: at("home/work"),
    parent: null,
    entries: [
      { name: "app", path: at("home/work/app") },
      { name: "way-in", path: at("home/work/app") },
    ],
  });
  expect((await list(at("home/work/app"), one)).parent).toBe(at("home/work"));
  for (const path of ["/", root, at("home"), at("home/work/way-out"), at("elsewhere")])
    expect(await refusal(path, one)).toEndWith(
      "outside of the directories that are set as projects.roots",
    );
});

test("two names of one root are one root", async () => {
  const one = rooted(at("home/work"), at("link-to-home/work"));
  expect(await list(undefined, one)).toMatchObject({ path: at("home/work"), parent: null });
});

test("several roots are listed as what is in /", async () => {
  make("home/work10");
  const several = rooted(
    at("link-to-home/work"),
    at("elsewhere"),
    at("later"),
    at("file"),
    at("data"),
  );
  const roots = {
    path: "/",
    parent: null,
    entries: [at("elsewhere"), at("home/work")].map((path) => ({ name: path, path })),
  };
  expect(await list(undefined, several)).toEqual(roots);
  expect(await list("/", several)).toEqual(roots);
  expect((await list(at("elsewhere"), several)).parent).toBe("/");
  expect((await list(at("elsewhere/inside"), several)).parent).toBe(at("elsewhere"));
  for (const path of [root, at("home"), at("home/work10"), "/usr"])
    expect(await refusal(path, several)).toContain("projects.roots");
});

test("/ as one of the roots is listed as it is", async () => {
  const all = rooted("/", at("elsewhere"));
  expect((await list(undefined, all)).entries).toContainEqual({ name: "usr", path: "/usr" });
});

test("a root that is not there is refused with a sentence", async () => {
  expect(await refusal(undefined, rooted(at("gone")))).toBe(
    `Cannot list ${JSON.stringify(at("gone"))}: it does not exist`,
  );
});

test("of very many directories the first 10,000 by name are listed", async () => {
  const total = 20_010;
  make("many");
  for (let number = total; number > 0; number -= 1) mkdirSync(at("many", `d${number}`));
  const listed = await names(at("many"));
  expect(listed).toEqual(Array.from({ length: 10_000 }, (_, index) => `d${index + 1}`));
}, 60_000);

test("a directory that the account may not read is refused, and a link into it left out", async () => {
  make("closed/inside", "beside/open");
  symlinkSync(at("closed/inside"), at("beside/link"));
  expect(await names(at("beside"))).toEqual(["link", "open"]);
  chmodSync(root, 0o755);
  chmodSync(at("closed"), 0);
  // Permissions mean nothing to root, as whom tests in containers run.
  const script = `
    import { openDirectories } from ${JSON.stringify(join(import.meta.dir, "../src/adapters/directories.ts"))};
    const directories = openDirectories({ ownFolders: [], roots: null, environment: process.env });
    if (process.getuid() === 0) process.setuid(65534);
    const [closed, beside] = process.argv.slice(1);
    const refused = await directories.list(closed).catch(({ code, message }) => [code, message]);
    const { entries } = await directories.list(beside);
    console.log(JSON.stringify({ refused, names: entries.map(({ name }) => name) }));
  `;
  const command = [process.execPath, "-e", script, at("closed"), at("beside")];
  const { stdout } = Bun.spawnSync(command);
  chmodSync(at("closed"), 0o700);
  expect(JSON.parse(stdout.toString())).toEqual({
    refused: [
      "INVALID_PATH",
      `Cannot list "${at("closed")}": the server's account may not enter it`,
    ],
    names: ["open"],
  });
});

test("directory_list says which directories are projects, through links too", async () => {
  await using app = await testApp();
  const client = await app.client();
  const path = await app.directory("app");
  const project_id = await client.create(path);
  symlinkSync(path, join(app.home, "work/link"));
  await app.directory("other");
  const { data } = await client.expect("directory_list_response", "directory_list", {
    data: { path: join(app.home, "work") },
  });
  expect(data).toEqual({
    path: join(app.home, "work"),
    parent: app.home,
    entries: [
      { name: "app", path, project_id },
      { name: "link", path, project_id },
      { name: "other", path: join(app.home, "work/other") },
    ],
  });
  const first = await client.expect("directory_list_response", "directory_list");
  expect(first.data).toMatchObject({ path: app.home });
  expect(first.data.entries.map(({ name }) => name)).not.toContain("data");
});
