import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chownSync, lstatSync, readdirSync, statSync } from "node:fs";
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
    const child = spawnServer({ home, settings: secured });
    const [code, err] = await Promise.all([child.exited, child.stderr.text()]);
    expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining("another user") });
    expect(err).not.toContain("    at ");
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
