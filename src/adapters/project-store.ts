import { randomUUID } from "node:crypto";
import {
  type Dirent,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import {
  agentOptions,
  image,
  model,
  permissionModes,
  toolRule,
} from "../contract/agent-options.ts";
import { actor, executionStatuses, projectState } from "../contract/messages.ts";
import type { ExecutionsFile, ProjectMetadata, ProjectStore, Telemetry } from "../core/ports.ts";
import { openMessageLog } from "./message-log.ts";
import { storageFault, systemCode } from "./storage-fault.ts";

interface StoreOptions {
  readonly dataDir: string;
  readonly rotation: { readonly bytes: number; readonly count: number; readonly keepDays: number };
  readonly telemetry: Telemetry;
}

const { id, state, created_at, last_active, usage, error } = projectState.entries;
const count = v.pipe(v.number(), v.minValue(0));
/** A rule that is none, or more than one, was kept by a version that did not know better. */
const rules = v.pipe(
  v.array(v.string()),
  v.transform((texts) => texts.filter((text) => v.is(toolRule, text))),
);
const metadataSchema = v.object({
  version: v.literal(1),
  id,
  path: v.pipe(v.string(), v.startsWith("/")),
  directory: v.optional(
    v.nullable(v.object({ uid: count, dev: count, ino: count, boot_id: v.string() })),
    // What was written before this was kept.
    null,
  ),
  created_at,
  trusted: v.nullable(v.boolean()),
  permission_mode: v.nullable(v.picklist(permissionModes)),
  model: v.nullable(model),
  session_proven: v.boolean(),
  fork: v.boolean(),
  remembered: v.object({ rules, directories: v.array(v.string()) }),
  open_permissions: v.array(v.string()),
  queued: count,
  paused: v.boolean(),
  state,
  session_id: v.nullable(v.string()),
  last_active,
  usage,
  error,
  log: v.nullable(
    v.object({
      epoch: projectState.entries.epoch,
      last_seq: projectState.entries.last_seq,
      boot_id: v.string(),
      clean: v.boolean(),
      file: v.nullable(
        v.object({ name: v.string(), dev: count, ino: count, birth_ms: v.number() }),
      ),
    }),
  ),
});
const executionsSchema = v.object({
  seq: count,
  accepted: v.array(v.tuple([v.string(), v.picklist(executionStatuses)])),
  queue: v.array(
    v.object({
      execution_id: v.string(),
      prompt: v.string(),
      options: agentOptions,
      images: v.array(image),
      device: v.nullable(actor),
      queued_at: v.string(),
    }),
  ),
});
const versioned = v.looseObject({ version: v.pipe(v.number(), v.safeInteger()) });

/** Opens the projects under the data directory, and clears away what earlier removals left. */
export function openProjectStore(options: StoreOptions): ProjectStore & {
  /** What `load` had to leave out: project id and reason. */
  readonly problems: readonly string[];
} {
  const { dataDir, rotation, telemetry } = options;
  const places = { projects: join(dataDir, "projects"), trash: join(dataDir, "trash") };
  for (const folder of Object.values(places)) mkdirSync(folder, { recursive: true, mode: 0o700 });
  for (const name of readdirSync(places.trash)) discard(join(places.trash, name), telemetry);

  const problems: string[] = [];
  const folders = new Map<string, ProjectFolder>();
  const folderOf = (project: string): ProjectFolder => {
    const known = folders.get(project) ?? new ProjectFolder(project, places, telemetry);
    folders.set(project, known);
    return known;
  };

  return {
    problems,
    load() {
      problems.length = 0;
      const found: ProjectMetadata[] = [];
      for (const entry of readdirSync(places.projects, { withFileTypes: true })) {
        if (entry.isFile()) continue;
        const metadata = readProject(places.projects, entry);
        if (metadata === null) {
          const grave = join(places.trash, `${entry.name}-${randomUUID()}`);
          renameSync(join(places.projects, entry.name), grave);
          discard(grave, telemetry);
          continue;
        }
        if (typeof metadata === "object") {
          found.push(metadata);
          continue;
        }
        problems.push(`Project ${entry.name}: ${metadata}`);
        telemetry.log("error", "project left out", { project_id: entry.name, reason: metadata });
      }
      return found.toSorted((a, b) => Date.parse(a.created_at) - Date.parse(b.created_at));
    },
    save: (metadata) => folderOf(metadata.id).save("metadata.json", metadata),
    loadExecutions: (project) => readExecutions(places.projects, project, telemetry),
    saveExecutions: (project, file) => folderOf(project).save("executions.json", file),
    remove: (project) => folderOf(project).remove(),
    openLog: (project, recorded, changed) =>
      openMessageLog({
        directory: join(places.projects, project, "logs"),
        recorded,
        changed,
        rotation,
        telemetry,
      }),
  };
}

/** One project's metadata, or why it cannot be used; null when it was never finished. */
function readProject(projects: string, entry: Dirent): ProjectMetadata | string | null {
  try {
    if (entry.isDirectory() && isUnfinished(join(projects, entry.name))) return null;
  } catch (cause) {
    return `its folder cannot be read (${systemCode(cause) ?? String(cause)})`;
  }
  return readMetadata(projects, entry.name);
}

/**
 * The server went down while the project was being made: nobody was told that there is one, and
 * nothing was ever logged in it.
 */
function isUnfinished(folder: string): boolean {
  const names = readdirSync(folder);
  const left = names.filter((name) => name !== "logs" && name !== "metadata.json.tmp");
  if (names.length === 0 || left.length > 0) return false;
  return !names.includes("logs") || readdirSync(join(folder, "logs")).length === 0;
}

/** One project's metadata, or why it cannot be used. The file is left as it is in any case. */
export function readMetadata(projects: string, name: string): ProjectMetadata | string {
  let content: unknown;
  try {
    content = JSON.parse(readFileSync(join(projects, name, "metadata.json"), "utf8"));
  } catch (cause) {
    return `its metadata cannot be read (${systemCode(cause) ?? "not JSON"})`;
  }
  if (v.is(versioned, content) && content.version > 1) {
    return `its metadata has version ${content.version}, made by a newer version of the server`;
  }
  const parsed = v.safeParse(metadataSchema, content);
  if (!parsed.success) {
    const field = v.getDotPath(parsed.issues[0]) ?? "all of it";
    return `its metadata is damaged (${field}: ${parsed.issues[0].message})`;
  }
  if (parsed.output.id !== name) return "its metadata belongs to another project";
  return parsed.output;
}

/** Writes a project's metadata while no server has it open. */
export function writeMetadata(projects: string, metadata: ProjectMetadata): void {
  const path = join(projects, metadata.id, "metadata.json");
  const text = `${JSON.stringify(metadata, null, 2)}\n`;
  writeFileSync(`${path}.tmp`, text, { mode: 0o600, flush: true });
  renameSync(`${path}.tmp`, path);
}

/** What is known of a project's executions; null if that is nothing. */
function readExecutions(
  projects: string,
  name: string,
  telemetry: Telemetry,
): ExecutionsFile | null {
  const path = join(projects, name, "executions.json");
  if (!existsSync(path)) return null;
  try {
    return v.parse(executionsSchema, JSON.parse(readFileSync(path, "utf8")));
  } catch (cause) {
    // The log has it all but the images of queued prompts; the file is kept for whoever looks.
    telemetry.log("error", "cannot read a project's executions", {
      project_id: name,
      error: cause,
    });
    renameSync(path, `${path}.corrupt`);
    return null;
  }
}

/**
 * The writes of one project, one after the other. Of several that wait for their turn, only one
 * is made, with the newest content. Whatever waits behind a removal finds the folder gone and
 * leaves it so.
 */
class ProjectFolder {
  readonly #id: string;
  readonly #places: { readonly projects: string; readonly trash: string };
  readonly #telemetry: Telemetry;
  #turn: Promise<unknown> = Promise.resolve();
  readonly #waiting = new Map<string, { text: string; readonly done: Promise<void> }>();
  #listed = false;
  #removed = false;

  constructor(
    project: string,
    places: { readonly projects: string; readonly trash: string },
    telemetry: Telemetry,
  ) {
    this.#id = project;
    this.#places = places;
    this.#telemetry = telemetry;
  }

  save(name: string, content: object): Promise<void> {
    const text = `${JSON.stringify(content, null, 2)}\n`;
    const waiting = this.#waiting.get(name);
    if (waiting) {
      waiting.text = text;
      return waiting.done;
    }
    const done = this.#inTurn("save", async () => {
      const newest = this.#waiting.get(name)?.text ?? text;
      this.#waiting.delete(name);
      if (!this.#removed) await this.#write(name, newest);
    });
    this.#waiting.set(name, { text, done });
    return done;
  }

  remove(): Promise<void> {
    return this.#inTurn("remove", async () => {
      const { projects, trash } = this.#places;
      const grave = join(trash, `${this.#id}-${randomUUID()}`);
      await rename(join(projects, this.#id), grave).catch((cause: unknown) => {
        // Nothing was ever saved, or an earlier removal failed after this step.
        if (systemCode(cause) !== "ENOENT") throw cause;
      });
      this.#removed = true;
      await Promise.all([syncDirectory(projects), syncDirectory(trash)]);
      discard(grave, this.#telemetry);
    });
  }

  #inTurn(verb: "save" | "remove", work: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(work).catch((cause: unknown) => {
      const fault = storageFault(`${verb} the project`, cause);
      this.#telemetry.log("error", fault.message, { project_id: this.#id, ...fault.details });
      throw fault;
    });
    this.#turn = done.catch(() => {
      // Whoever asked was told; the next in turn may have more luck.
    });
    return done;
  }

  async #write(name: string, text: string): Promise<void> {
    const folder = join(this.#places.projects, this.#id);
    const target = join(folder, name);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const file = await open(`${target}.tmp`, "w", 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(`${target}.tmp`, target);
    await syncDirectory(folder);
    if (this.#listed) return;
    // The folder may have been made just now, by this or by the log that is kept in it.
    await syncDirectory(this.#places.projects);
    this.#listed = true;
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** Deletes in the background; what is left is deleted at the next start. */
function discard(path: string, telemetry: Telemetry): void {
  rm(path, { recursive: true, force: true }).catch((cause: unknown) => {
    telemetry.log("warn", "cannot empty the trash", { reason: systemCode(cause) });
  });
}
