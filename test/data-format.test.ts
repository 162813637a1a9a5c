import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { scratch } from "./support/app.ts";
import { Client } from "./support/client.ts";
import { ServerProcess, spawnServer } from "./support/server-process.ts";

setDefaultTimeout(60_000);

const main = join(import.meta.dir, "..", "src", "main.ts");

let stack: AsyncDisposableStack;
let home: string;
let data: string;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  home = await scratch(stack);
  data = join(home, "data");
});

afterEach(() => stack.disposeAsync());

/** Has a server make a project, or list those that it finds, and gives how many there are then. */
async function visit(name?: string): Promise<number> {
  await using server = await ServerProcess.start({ home });
  await using client = await Client.connect(server.url);
  if (name !== undefined) {
    mkdirSync(join(home, name));
    await client.create(join(home, name));
  }
  return (await client.expect("project_list_response", "project_list")).data.projects.length;
}

async function command(...argv: string[]) {
  const child = Bun.spawn([process.execPath, main, ...argv], {
    cwd: home,
    env: { PATH: process.env["PATH"], HOME: home, PA_DATA_DIR: data, PA_SERVER_PORT: "0" },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [code, out, err] = [
    await child.exited,
    await child.stdout.text(),
    await child.stderr.text(),
  ];
  return { code, out, err };
}

const everything = () =>
  readdirSync(data, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .toSorted()
    .map((path) => `${path} ${statSync(path).mode} ${readFileSync(path, "latin1")}`);

test("a data directory says its format from the first start on, and one of before is adopted", async () => {
  expect(await visit("one")).toBe(1);
  expect(readFileSync(join(data, "version"), "utf8")).toBe("1\n");
  rmSync(join(data, "version"));
  expect(await visit("two")).toBe(2);
  expect(readFileSync(join(data, "version"), "utf8")).toBe("1\n");
});

test.each([
  ["2\n", "it has format 2, made by a newer version of the server"],
  ["12", "it has format 12, made by a newer version of the server"],
  ["", 'its file "version" does not say its format'],
  ["1.5\n", 'its file "version" does not say its format'],
])(
  "a data directory of the format %j is refused with a sentence, and left as it is",
  async (text, reason) => {
    await visit("one");
    writeFileSync(join(data, "version"), text, { mode: 0o600 });
    chmodSync(join(data, "version"), 0o640);
    const before = everything();
    const child = spawnServer({ home });
    expect(await child.exited).toBe(1);
    const said = `Cannot use the data directory "${data}": ${reason}`;
    expect(await child.stderr.text()).toStartWith(said);
    const { code, err } = await command("projects", "list");
    expect({ code, lines: err.trimEnd().split("\n") }).toEqual({
      code: 1,
      lines: [expect.stringContaining(said)],
    });
    const { out } = await command("doctor", "--fix", "--json");
    expect(JSON.parse(out).findings).toContainEqual(
      expect.objectContaining({
        status: "fail",
        what: "format",
        text: expect.stringContaining(reason),
      }),
    );
    expect(everything()).toEqual(before);
  },
);
