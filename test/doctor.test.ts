import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { chmodSync, chownSync, existsSync, readdirSync, statSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { ownCertificate } from "../src/access/certificate.ts";
import { serverId } from "../src/adapters/server-key.ts";
import { scratch } from "./support/app.ts";
import { Client } from "./support/client.ts";
import { ServerProcess } from "./support/server-process.ts";

setDefaultTimeout(60_000);

const main = join(import.meta.dir, "..", "src", "main.ts");
const fakeClaude = join(import.meta.dir, "support", "fake-claude.ts");
interface Finding {
  readonly status: string;
  readonly what: string;
  readonly text: string;
  readonly remedy?: string;
}

/** Runs doctor in a home, and gives what it says. */
async function doctor(
  home: string,
  {
    env = {},
    argv = [],
    cwd = home,
  }: { env?: Record<string, string>; argv?: string[]; cwd?: string } = {},
) {
  const child = Bun.spawn([process.execPath, main, "doctor", "--json", ...argv], {
    cwd,
    env: {
      PATH: process.env["PATH"],
      HOME: home,
      PA_DATA_DIR: join(home, "data"),
      PA_SERVER_PORT: "0",
      PA_CLAUDE_BINARY: fakeClaude,
      ...env,
    },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [code, out, err] = await Promise.all([
    child.exited,
    child.stdout.text(),
    child.stderr.text(),
  ]);
  expect(err).toBe("");
  const { healthy, findings }: { healthy: boolean; findings: Finding[] } = JSON.parse(out);
  const bad = findings.filter(({ status }) => status !== "ok");
  return { code, healthy, findings, bad, failed: bad.filter(({ status }) => status === "fail") };
}

/** A home in which a server has run, with a project and some history. */
async function lived(
  stack: AsyncDisposableStack,
): Promise<{ home: string; id: string; path: string }> {
  const home = await scratch(stack);
  const path = join(home, "work");
  await mkdir(path);
  await using server = await ServerProcess.start({ home });
  await using client = await Client.connect(server.url);
  const id = await client.create(path);
  await client.run(id, "say:hello");
  return { home, id, path };
}

describe("doctor", () => {
  test("finds nothing that keeps a new server, or one that has lived, from working", async () => {
    await using stack = new AsyncDisposableStack();
    expect(await doctor(await scratch(stack))).toMatchObject({ code: 0, healthy: true });
    const { home } = await lived(stack);
    const { code, findings } = await doctor(home);
    expect(code).toBe(0);
    const what = findings.map((finding) => finding.what);
    for (const expected of ["claude", "login", "data", "disk", "projects", "certificate", "keys"])
      expect(what).toContain(expected);
  });

  test("says which process runs, and looks at its data without disturbing it", async () => {
    await using stack = new AsyncDisposableStack();
    const { home } = await lived(stack);
    await using server = await ServerProcess.start({ home });
    const { code, findings } = await doctor(home, { env: { PA_SERVER_PORT: server.url.port } });
    expect(code).toBe(0);
    expect(findings).toContainEqual(
      expect.objectContaining({ what: "server", text: `it runs, as process ${server.pid}` }),
    );
  });

  test("says that there is no CLI, that it is old, or that nobody is logged in", async () => {
    await using stack = new AsyncDisposableStack();
    const home = await scratch(stack);
    const none = await doctor(home, { env: { PA_CLAUDE_BINARY: "/nowhere/claude" } });
    expect(none.failed).toMatchObject([
      { what: "claude", remedy: expect.stringContaining("nstall") },
    ]);
    const old = await doctor(home, { env: { FAKE_CLAUDE_VERSION: "1.0.9" } });
    expect(old.failed).toMatchObject([{ what: "claude", text: expect.stringContaining("1.0.9") }]);
    const out = await doctor(home, { env: { FAKE_CLAUDE_LOGGED_OUT: "1" } });
    expect(out.failed).toMatchObject([
      { what: "login", remedy: expect.stringContaining("log in") },
    ]);
    for (const { code } of [none, old, out]) expect(code).toBe(1);
  });

  test("says who has the port", async () => {
    await using stack = new AsyncDisposableStack();
    const home = await scratch(stack);
    const other = createServer().listen(0, "0.0.0.0");
    stack.defer(() => void other.close());
    await new Promise((resolve) => other.once("listening", resolve));
    const address = other.address();
    const port = typeof address === "object" && address ? String(address.port) : "";
    const { failed } = await doctor(home, { env: { PA_SERVER_PORT: port } });
    expect(failed).toMatchObject([
      { what: "port", text: expect.stringContaining(`in use, by process ${process.pid}`) },
    ]);
  });

  test("says what others may read, and closes it with --fix", async () => {
    await using stack = new AsyncDisposableStack();
    const { home } = await lived(stack);
    const key = join(home, "data", "certs", "server.key");
    chmodSync(key, 0o644);
    const { failed } = await doctor(home);
    expect(failed).toMatchObject([{ what: "modes", text: expect.stringContaining(key) }]);
    expect(await doctor(home, { argv: ["--fix"] })).toMatchObject({ code: 0 });
    expect(statSync(key).mode & 0o777).toBe(0o600);
  });

  test("makes damaged metadata again from the log with --fix, and keeps what was there", async () => {
    await using stack = new AsyncDisposableStack();
    const { home, id, path } = await lived(stack);
    const folder = join(home, "data", "projects", id);
    await writeFile(join(folder, "metadata.json"), "{", { mode: 0o600 });
    const { failed } = await doctor(home);
    expect(failed).toMatchObject([
      { what: `project ${id.slice(0, 8)}`, text: expect.stringContaining(path) },
    ]);
    expect(await doctor(home, { argv: ["--fix"] })).toMatchObject({ code: 0 });
    expect(readdirSync(folder).some((name) => name.startsWith("metadata.json.damaged-"))).toBe(
      true,
    );
    await using server = await ServerProcess.start({ home });
    await using client = await Client.connect(server.url);
    const { data } = await client.expect("project_list_response", "project_list");
    expect(data.projects).toMatchObject([{ id, path, state: "IDLE", trusted: false }]);
    const page = await client.expect("messages_response", "get_messages", { project_id: id });
    expect(page.data.messages.length).toBeGreaterThan(3);
    expect(await client.run(id, "say:again")).toMatchObject({ state: "IDLE" });
  });

  test("says that a log is torn, or lacks a part", async () => {
    await using stack = new AsyncDisposableStack();
    const { home, id } = await lived(stack);
    const logs = join(home, "data", "projects", id, "logs");
    const [name = ""] = readdirSync(logs);
    const text = await Bun.file(join(logs, name)).text();
    await writeFile(join(logs, name), text.slice(0, -20), { mode: 0o600 });
    expect((await doctor(home)).bad).toContainEqual(
      expect.objectContaining({ status: "warn", text: "its last line is torn" }),
    );
    await writeFile(join(logs, name), text.split("\n").slice(0, 2).join("\n") + "\n", {
      mode: 0o600,
    });
    const later = text.split("\n").slice(4).join("\n");
    await writeFile(join(logs, "messages_2999-01-01_00-00-00.jsonl"), later, { mode: 0o600 });
    expect((await doctor(home)).bad).toContainEqual(
      expect.objectContaining({ text: expect.stringMatching(/^numbers 3 to 4 are missing/) }),
    );
  });

  test("says that the disk is full", async () => {
    await using stack = new AsyncDisposableStack();
    const { home } = await lived(stack);
    const { failed } = await doctor(home, { env: { PA_LIMITS_MIN_FREE_DISK: "8000000GB" } });
    expect(failed).toMatchObject([{ what: "disk", remedy: "Make room" }]);
  });

  test("says that the certificate has ended", async () => {
    await using stack = new AsyncDisposableStack();
    const home = await scratch(stack);
    const certsDir = join(home, "data", "certs");
    await mkdir(certsDir, { recursive: true, mode: 0o700 });
    chmodSync(dirname(certsDir), 0o700);
    serverId(certsDir);
    await ownCertificate({ certsDir, now: new Date("2020-01-01T00:00:00Z") });
    const { failed } = await doctor(home);
    expect(failed).toMatchObject([
      { what: "certificate", text: expect.stringMatching(/^it ended on 2021-/) },
    ]);
    await using server = await ServerProcess.start({ home, settings: { PA_TLS_ENABLED: "true" } });
    expect(server.url.protocol).toBe("https:");
    const pem = await Bun.file(join(certsDir, "server.crt")).text();
    expect(new X509Certificate(pem).validToDate.getTime()).toBeGreaterThan(Date.now());
  });

  test("says what belongs to somebody else", async () => {
    await using stack = new AsyncDisposableStack();
    const { home } = await lived(stack);
    const file = join(home, "data", "audit.jsonl");
    chownSync(file, 65_534, 65_534);
    const { failed } = await doctor(home);
    expect(failed).toMatchObject([
      {
        what: "owner",
        text: expect.stringContaining(file),
        remedy: expect.stringContaining("chown"),
      },
    ]);
  });

  test("warns of a folder that holds what looks like the server's own", async () => {
    await using stack = new AsyncDisposableStack();
    const home = await scratch(stack);
    const cwd = join(home, "cloned");
    await mkdir(cwd);
    for (const name of ["bunfig.toml", ".env", "authorized_keys"])
      await Bun.write(join(cwd, name), "");
    const { failed } = await doctor(home, { cwd });
    expect(failed).toMatchObject([
      { what: "folder", text: expect.stringContaining("bunfig.toml, .env, authorized_keys") },
    ]);
  });

  test("takes the sources' own folder for what it is", async () => {
    await using stack = new AsyncDisposableStack();
    const home = await scratch(stack);
    const { findings } = await doctor(home, { cwd: join(import.meta.dir, "..") });
    expect(findings.find(({ what }) => what === "folder")).toMatchObject({ status: "ok" });
  });

  test("lists the settings that cannot be, and the lines of keys that are refused", async () => {
    await using stack = new AsyncDisposableStack();
    const home = await scratch(stack);
    const { failed } = await doctor(home, { env: { PA_SERVER_PORT: "many", PA_NONSENSE: "1" } });
    expect(failed).toMatchObject([
      { what: "settings", text: expect.stringMatching(/many[^]*PA_NONSENSE|PA_NONSENSE[^]*many/) },
    ]);
    await mkdir(join(home, "data"), { mode: 0o700 });
    await writeFile(join(home, "data", "authorized_keys"), "# mine\nnonsense\n", { mode: 0o600 });
    expect((await doctor(home)).bad).toContainEqual(
      expect.objectContaining({ what: "keys", text: expect.stringContaining("line 2") }),
    );
    expect(existsSync(join(home, "data", "certs"))).toBe(false);
  });

  test("speaks to people in lines, and ends with a verdict", async () => {
    await using stack = new AsyncDisposableStack();
    const home = await scratch(stack);
    const child = Bun.spawn([process.execPath, main, "doctor", "--claude-binary=/nowhere/claude"], {
      cwd: home,
      env: { PATH: process.env["PATH"], HOME: home, PA_SERVER_PORT: "0" },
      stdout: "pipe",
    });
    const out = await child.stdout.text();
    expect(out).toMatch(/^FAIL {2}claude .+\n +→ .+/m);
    expect(out.trimEnd().split("\n").at(-1)).toBe("To be mended: 1");
    expect(await child.exited).toBe(1);
  });
});
