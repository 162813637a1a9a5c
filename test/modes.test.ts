import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, chownSync, lstatSync, readdirSync, statSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { scratch } from "./support/app.ts";
import { Client } from "./support/client.ts";
import { authorize, tryKey } from "./support/log-in.ts";
import { ServerProcess, spawnServer } from "./support/server-process.ts";
import { SshLab } from "./support/ssh-lab.ts";

setDefaultTimeout(60_000);

const lab = new SshLab();
afterAll(() => lab[Symbol.dispose]());
const owner = lab.key("ed25519");
const secured = { PA_AUTH_MODE: "ssh", PA_TLS_ENABLED: "true", PA_INSECURE: "false" };
/** Whoever else there is on this machine. */
const nobody = 65_534;

/** Everything under a folder that others than its owner can do anything with. */
function open(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true, recursive: true }).flatMap((entry) => {
    const path = join(entry.parentPath, entry.name);
    // A link, such as the lock, has no mode that counts.
    if (entry.isSymbolicLink()) return [];
    const mode = lstatSync(path).mode & 0o777;
    const expected = entry.isDirectory() ? 0o700 : 0o600;
    return mode === expected ? [] : [`${path} ${mode.toString(8)}`];
  });
}

test("all that the server makes is its owner's alone, whatever the umask; the agent's files are not", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const data = join(home, "data");
  await mkdir(data, { mode: 0o700 });
  await authorize(data, owner.line);
  const settings = {
    ...secured,
    PA_LOG_ROTATION_COUNT: "20",
    PA_LOG_OUTPUT: join(home, "log", "x"),
  };
  const work = join(home, "work");
  await mkdir(work);
  const by = ["sh", "-c", 'umask 000; exec "$@"', "sh"];
  const session = async (use: (client: Client) => Promise<void>) => {
    const server = await ServerProcess.start({
      home,
      settings: { ...settings, PA_LOG_OUTPUT: "stdout" },
      by,
    });
    const ca = await Bun.file(join(data, "certs", "server.crt")).text();
    const client = await Client.connect(server.url, { ca });
    await tryKey(client, owner);
    await use(client);
    return server;
  };
  const first = await session(async (client) => {
    const id = await client.create(work);
    await client.run(id, "flood:100:50");
    await client.run(id, `bash:touch ${join(work, "made")}`);
    await client.expect("project_state", "execute", { project_id: id, data: { prompt: "hang" } });
    const image = { media_type: "image/png", data: "iVBORw0KGgo=" };
    await client.expect("execution_queued", "execute", {
      project_id: id,
      data: { prompt: "say:later", queue: true, images: [image] },
    });
    expect(open(data)).toEqual([]);
  });
  await first.crash();
  const [project = ""] = readdirSync(join(data, "projects"));
  const logs = join(data, "projects", project, "logs");
  const newest =
    readdirSync(logs)
      .filter((name) => name.endsWith(".jsonl"))
      .toSorted()
      .at(-1) ?? "";
  await writeFile(join(logs, newest), '{"seq":', { flag: "a" });
  const second = await session(async (client) => {
    await client.expect("project_list_response", "project_list");
  });
  expect(open(data)).toEqual([]);
  expect(readdirSync(logs)).toContain("lost+found");
  await second.stop();
  expect(open(data)).toEqual([]);
  expect(statSync(data).mode & 0o777).toBe(0o700);
  expect(statSync(join(work, "made")).mode & 0o777).toBe(0o666);
});

/** Starts a server that is to refuse, and gives its sentence. */
async function refusal(home: string, settings: Record<string, string> = {}): Promise<string> {
  const child = spawnServer({ home, settings });
  const [code, err] = await Promise.all([child.exited, child.stderr.text()]);
  expect({ code, err }).toEqual({ code: 1, err: expect.stringMatching(/^Cannot use [^\n]+\n$/) });
  return err;
}

/** A data directory with one project, in which an agent has worked. */
async function filled(stack: AsyncDisposableStack): Promise<{ home: string; project: string }> {
  const home = await scratch(stack);
  const work = join(home, "work");
  await mkdir(work);
  await using server = await ServerProcess.start({ home });
  await using client = await Client.connect(server.url);
  const id = await client.create(work);
  await client.run(id, "say:hello");
  await server.stop();
  return { home, project: join("projects", id) };
}

describe("what others could have put there", () => {
  test.each([
    ["the projects", "projects"],
    ["the records of runs", "runs"],
    ["the certificates", "certs"],
    ["a project", "PROJECT"],
    ["a project's logs", "PROJECT/logs"],
    ["a project's metadata", "PROJECT/metadata.json"],
    ["a project's executions", "PROJECT/executions.json"],
  ])("stops the start, because it would be worked with: %s", async (_, place) => {
    await using stack = new AsyncDisposableStack();
    const { home, project } = await filled(stack);
    const path = join(home, "data", place.replace("PROJECT", project));
    const { mode } = statSync(path);
    chmodSync(path, mode | 0o020);
    expect(await refusal(home)).toContain(`"${path}": others may change`);
    chmodSync(path, mode);
    chownSync(path, nobody, nobody);
    expect(await refusal(home)).toContain(`"${path}": it belongs to another user`);
    chownSync(path, 0, 0);
    await using server = await ServerProcess.start({ home });
    await using client = await Client.connect(server.url);
    const { data } = await client.expect("project_list_response", "project_list");
    expect(data.projects).toHaveLength(1);
  });

  test("stops the start in a directory that was open to all; while it is empty it is closed", async () => {
    await using stack = new AsyncDisposableStack();
    const { home } = await filled(stack);
    const data = join(home, "data");
    chmodSync(data, 0o777);
    expect(await refusal(home)).toContain(`"${data}": others may have put something into it`);
    expect(statSync(data).mode & 0o777).toBe(0o777);
    const empty = join(home, "empty");
    await mkdir(empty);
    chmodSync(empty, 0o777);
    await using server = await ServerProcess.start({ home, settings: { PA_DATA_DIR: empty } });
    expect(server.log).toContain("listening");
    expect(statSync(empty).mode & 0o777).toBe(0o700);
  });

  test("is left out where it is a log, whose queued prompts would be run", async () => {
    await using stack = new AsyncDisposableStack();
    const { home, project } = await filled(stack);
    const logs = join(home, "data", project, "logs");
    const [name = ""] = readdirSync(logs);
    chownSync(join(logs, name), nobody, nobody);
    await using server = await ServerProcess.start({ home });
    await using client = await Client.connect(server.url);
    const { data } = await client.expect("project_list_response", "project_list");
    expect(data.projects).toEqual([]);
    expect(server.log).toContain("belongs to another user");
  });
});

describe("what belongs to somebody else", () => {
  test.each([
    ["the data directory", ""],
    ["the server's key", "certs/server.key"],
    ["the devices", "devices.json"],
    ["the tokens", "tokens.json"],
  ])("stops the start: %s", async (_, name) => {
    await using stack = new AsyncDisposableStack();
    const home = await scratch(stack);
    const data = join(home, "data");
    await mkdir(data, { mode: 0o700 });
    await authorize(data, owner.line);
    await using server = await ServerProcess.start({ home, settings: secured });
    const ca = await Bun.file(join(data, "certs", "server.crt")).text();
    await using client = await Client.connect(server.url, { ca });
    expect(await tryKey(client, owner)).toMatchObject({ type: "auth_success" });
    await server.stop();
    chownSync(join(data, name), nobody, nobody);
    expect(await refusal(home, secured)).toContain("another user");
  });

  test("is refused as a file of keys, and as the settings", async () => {
    await using stack = new AsyncDisposableStack();
    const home = await scratch(stack);
    const data = join(home, "data");
    await mkdir(data, { mode: 0o700 });
    await authorize(data, owner.line);
    chownSync(join(data, "authorized_keys"), nobody, nobody);
    await using server = await ServerProcess.start({ home, settings: secured });
    const ca = await Bun.file(join(data, "certs", "server.crt")).text();
    await using client = await Client.connect(server.url, { ca });
    expect(await tryKey(client, owner)).toMatchObject({ data: { code: "UNAUTHORIZED" } });
    expect(server.log).toContain("belongs to another user");
    await server.stop();
    const config = join(home, "config.yaml");
    await writeFile(config, "server:\n  port: 0\n", { mode: 0o600 });
    chownSync(config, nobody, nobody);
    const child = spawnServer({ home, settings: { ...secured, PA_CONFIG: config } });
    const [code, err] = await Promise.all([child.exited, child.stderr.text()]);
    expect({ code, err }).toEqual({ code: 2, err: expect.stringContaining("another user") });
  });
});
