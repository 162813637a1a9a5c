import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openProjectStore } from "../src/adapters/project-store.ts";
import { Fault } from "../src/contract/errors.ts";
import type { ProjectMetadata, Telemetry } from "../src/core/ports.ts";

const root = mkdtempSync(join(tmpdir(), "project-store-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let dataDir = "";
let logged: string[] = [];
beforeEach(() => {
  dataDir = mkdtempSync(join(root, "data-"));
  logged = [];
});

const telemetry: Telemetry = {
  count: () => {},
  gauge: () => {},
  observe: () => {},
  log: (level, text, fields) => logged.push(JSON.stringify({ level, text, ...fields })),
};
const rotation = { bytes: 1_048_576, count: 1_000, keepDays: 0 };
const open = () => openProjectStore({ dataDir, rotation, telemetry });

function project(changes: Partial<ProjectMetadata> = {}): ProjectMetadata {
  return {
    version: 1,
    id: randomUUID(),
    path: "/home/me/app",
    directory: { uid: 1, dev: 2, ino: 3, boot_id: "boot" },
    created_at: "2026-01-02T03:04:05.678Z",
    trusted: null,
    permission_mode: null,
    model: null,
    session_proven: false,
    fork: false,
    remembered: { rules: [], directories: [] },
    open_permissions: [],
    queued: 0,
    paused: false,
    state: "IDLE",
    session_id: null,
    last_active: "2026-01-02T03:04:05.678Z",
    usage: { cost_usd: 0.25, input_tokens: 1, output_tokens: 2, runs: 1, duration_ms: 1_500 },
    error: { code: "EXECUTION_FAILED", message: "Cannot go on" },
    log: {
      epoch: "0123456789ab",
      last_seq: 7,
      boot_id: "boot",
      clean: true,
      file: { name: "messages.jsonl", dev: 1, ino: 2, birth_ms: 3.5 },
    },
    ...changes,
  };
}
const fileOf = (id: string): string => join(dataDir, "projects", id, "metadata.json");
const savedPath = (id: string): unknown => JSON.parse(readFileSync(fileOf(id), "utf8")).path;

async function eventually(condition: () => boolean): Promise<void> {
  while (!condition()) await Bun.sleep(1);
}

describe("ProjectStore.save and load", () => {
  test("load gives back what was saved, oldest first", async () => {
    const store = open();
    const projects = ["2026-03", "2026-01", "2026-02"].map((month) =>
      project({ created_at: `${month}-01T00:00:00.000Z` }),
    );
    await Promise.all(projects.map((each) => store.save(each)));
    const reopened = open();
    expect(reopened.load()).toEqual(
      projects.toSorted((a, b) => (a.created_at < b.created_at ? -1 : 1)),
    );
    expect(reopened.problems).toEqual([]);
  });

  test("everything is for the owner alone, and no draft stays behind", async () => {
    const metadata = project();
    await open().save(metadata);
    expect(readdirSync(join(dataDir, "projects", metadata.id))).toEqual(["metadata.json"]);
    expect(statSync(fileOf(metadata.id)).mode & 0o777).toBe(0o600);
    for (const folder of ["projects", "trash", join("projects", metadata.id)]) {
      expect(statSync(join(dataDir, folder)).mode & 0o777).toBe(0o700);
    }
  });

  test("of a hundred saves that wait only the newest is written, for all of them", async () => {
    const store = open();
    const metadata = project();
    const seen = Array.from({ length: 100 }, async (_, index) => {
      await store.save({ ...metadata, path: `/${index}` });
      return savedPath(metadata.id);
    });
    expect(new Set(await Promise.all(seen))).toEqual(new Set(["/99"]));
  });

  test("a save during a write waits for a write of its own", async () => {
    const store = open();
    const metadata = project();
    const first = store.save({ ...metadata, path: "/first" });
    await eventually(() => existsSync(join(dataDir, "projects", metadata.id)));
    const second = store.save({ ...metadata, path: "/second" });
    await first;
    await second;
    expect(savedPath(metadata.id)).toBe("/second");
  });

  test("saves what the metadata was when save was called", async () => {
    const store = open();
    const metadata = { ...project(), path: "/before" };
    const saved = store.save(metadata);
    metadata.path = "/after";
    await saved;
    expect(savedPath(metadata.id)).toBe("/before");
  });

  test("a save that fails is a STORAGE_ERROR without paths, and the next one may succeed", async () => {
    const store = open();
    const metadata = project();
    writeFileSync(join(dataDir, "projects", metadata.id), "in the way");
    const failure: unknown = await store.save(metadata).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(Fault);
    expect(failure).toMatchObject({ code: "STORAGE_ERROR", details: { reason: "EEXIST" } });
    expect(String(failure)).not.toContain(dataDir);
    rmSync(join(dataDir, "projects", metadata.id));
    await store.save(metadata);
    expect(savedPath(metadata.id)).toBe(metadata.path);
  });
});

describe("ProjectStore.load", () => {
  const good = project();
  const broken: [what: string, content: string, why: string][] = [
    ["an empty file", "", "cannot be read"],
    ["a torn file", JSON.stringify(good).slice(0, 60), "cannot be read"],
    ["NULs", "\0".repeat(512), "cannot be read"],
    ["something else", "[]", "damaged"],
    ["no version", JSON.stringify({ ...good, version: undefined }), "damaged (version"],
    ["a missing field", JSON.stringify({ ...good, path: undefined }), "damaged (path"],
    ["a wrong field", JSON.stringify({ ...good, log: { epoch: "?" } }), "damaged (log.epoch"],
    ["a newer version", JSON.stringify({ version: 2 }), "version 2, made by a newer version"],
    ["a stranger", JSON.stringify({ ...good, id: randomUUID() }), "belongs to another project"],
  ];

  test.each(broken)("leaves out %s, and says so", async (_, content, why) => {
    const store = open();
    const id = randomUUID();
    await store.save(good);
    mkdirSync(join(dataDir, "projects", id));
    writeFileSync(fileOf(id), content);
    expect(store.load()).toEqual([good]);
    expect(store.problems).toEqual([expect.stringContaining(`Project ${id}: its metadata`)]);
    expect(store.problems[0]).toContain(why);
    expect(logged.join()).toContain(id);
    expect(readFileSync(fileOf(id), "utf8")).toBe(content);
  });

  test("leaves out a folder without metadata, and passes by files", async () => {
    const store = open();
    await store.save(good);
    const id = randomUUID();
    mkdirSync(join(dataDir, "projects", id));
    writeFileSync(join(dataDir, "projects", ".DS_Store"), "");
    expect(store.load()).toEqual([good]);
    expect(store.problems).toEqual([`Project ${id}: its metadata cannot be read (ENOENT)`]);
  });
});

/** Makes a folder where projects are kept; names that end with a slash are folders in it. */
function make(name: string, ...files: readonly string[]): string {
  const folder = join(dataDir, "projects", name);
  for (const file of files) {
    mkdirSync(join(folder, file, ".."), { recursive: true });
    if (file.endsWith("/")) mkdirSync(join(folder, file), { recursive: true });
    else writeFileSync(join(folder, file), "");
  }
  return folder;
}

describe("a folder that a server was making when it was killed", () => {
  test("is cleared away without a word, because nobody was told of that project", async () => {
    const folders = [
      make(randomUUID(), "logs/"),
      make(randomUUID(), "logs/", "metadata.json.tmp"),
      make(randomUUID(), "metadata.json.tmp"),
    ];
    const store = open();
    expect(store.load()).toEqual([]);
    expect(store.problems).toEqual([]);
    expect(logged).toEqual([]);
    while (folders.some((folder) => existsSync(folder))) await Bun.sleep(1);
  });

  test("is a problem, and stays, if there is anything else in it", async () => {
    const folders = [
      make(randomUUID(), "logs/messages_2026-01-01_00-00-00.jsonl"),
      make(randomUUID(), "logs/", "executions.json"),
      make(randomUUID(), "logs/", "metadata.json.tmp", "notes.txt"),
    ];
    const store = open();
    expect(store.load()).toEqual([]);
    expect(store.problems).toHaveLength(folders.length);
    expect(folders.every((folder) => existsSync(folder))).toBe(true);
  });
});

describe("ProjectStore.remove", () => {
  test("the project is gone when it resolves, and its files soon after", async () => {
    const store = open();
    const metadata = project();
    await store.save(metadata);
    await store.remove(metadata.id);
    expect(open().load()).toEqual([]);
    expect(existsSync(join(dataDir, "projects", metadata.id))).toBe(false);
    await eventually(() => readdirSync(join(dataDir, "trash")).length === 0);
  });

  test("neither a save that waits nor one that comes later brings the project back", async () => {
    const store = open();
    const metadata = project();
    const before = [store.save(metadata), store.save(metadata), store.save(metadata)];
    const removed = store.remove(metadata.id);
    const after = [store.save(metadata), store.save(metadata)];
    await Promise.all([...before, removed, ...after]);
    await store.save(metadata);
    expect(readdirSync(join(dataDir, "projects"))).toEqual([]);
  });

  test("a project that was never saved can be removed", async () => {
    await open().remove(randomUUID());
    expect(readdirSync(join(dataDir, "projects"))).toEqual([]);
  });

  test("what an earlier server left in the trash is deleted", async () => {
    const leftover = join(dataDir, "trash", `${randomUUID()}-${randomUUID()}`, "logs");
    mkdirSync(leftover, { recursive: true });
    writeFileSync(join(leftover, "messages.jsonl"), "{}\n");
    open();
    await eventually(() => readdirSync(join(dataDir, "trash")).length === 0);
  });

  test("a removal that fails keeps the project, which can still be saved", async () => {
    const store = open();
    const metadata = project();
    await store.save(metadata);
    rmSync(join(dataDir, "trash"), { recursive: true });
    writeFileSync(join(dataDir, "trash"), "in the way");
    const failure: unknown = await store.remove(metadata.id).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: "STORAGE_ERROR", details: { reason: "ENOTDIR" } });
    await store.save({ ...metadata, path: "/still/here" });
    expect(savedPath(metadata.id)).toBe("/still/here");
  });
});

describe("ProjectStore.openLog", () => {
  test("keeps a project's log in its folder", async () => {
    const store = open();
    const metadata = project({ log: null });
    await store.save(metadata);
    const { log } = store.openLog(metadata.id, null, () => {});
    log.append([{ direction: "server", message: '{"type":"notice","data":{}}' }], new Date());
    await log.close();
    expect(readdirSync(join(dataDir, "projects", metadata.id)).toSorted()).toEqual([
      "logs",
      "metadata.json",
    ]);
  });
});
