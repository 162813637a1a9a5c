import { Fault } from "../contract/errors.ts";
import type { LobbyType, ServerData } from "../contract/messages.ts";
import { Feed } from "./feed.ts";
import { encode } from "./frame.ts";
import type { LogState, ProjectMetadata, Publisher } from "./ports.ts";
import { Project, type ProjectDeps } from "./project.ts";
import { Queue } from "./queue.ts";
import { restore } from "./restore.ts";
import { Warm } from "./warm.ts";

/** The topic of what every client is told. */
export const lobby = "lobby";

const storageRetryMs = 1_000;

/** The set of known projects. */
export class Projects implements Iterable<Project> {
  readonly #deps: ProjectDeps;
  readonly #publisher: Publisher;
  readonly #queue: Queue;
  readonly #byId = new Map<string, Project>();
  readonly #problems: string[] = [];
  #draining = false;

  constructor(
    deps: Omit<ProjectDeps, "changed" | "queue" | "trusts" | "warm">,
    publisher: Publisher,
  ) {
    this.#publisher = publisher;
    this.#queue = new Queue(deps);
    this.#deps = {
      ...deps,
      queue: this.#queue,
      warm: new Warm(deps.config.claudeMaxWarm, deps.telemetry),
      trusts: (path) => this.#trusts(path),
      changed: (project) => this.#updated(project),
    };
    for (const metadata of deps.store.load()) this.#restore(metadata);
    this.#counted();
  }

  get size(): number {
    return this.#byId.size;
  }

  /** Why projects that are on the disk are not here. */
  get problems(): readonly string[] {
    return this.#problems;
  }

  /** Oldest first. */
  [Symbol.iterator](): Iterator<Project> {
    return this.#byId.values();
  }

  /** Prompts that wait their turn. */
  get queued(): number {
    return this.#queue.length;
  }

  get executing(): number {
    return [...this.#byId.values()].filter((project) => project.executing).length;
  }

  /** Why a project's log cannot be written; undefined while all can. */
  get failing(): Fault | undefined {
    return [...this.#byId.values()].find((project) => project.feed.failing)?.feed.failing;
  }

  /** Their states as a JSON array, oldest first. */
  list(): string {
    return `[${Array.from(this.#byId.values(), (project) => project.json).join(",")}]`;
  }

  get(id: string): Project {
    const project = this.#byId.get(id);
    if (!project)
      throw new Fault("PROJECT_NOT_FOUND", `Cannot find the project ${JSON.stringify(id)}`);
    return project;
  }

  /** Makes a project of a directory. Accepted at once; resolves once it is on the disk. */
  async create(path: string, trusted: boolean | null): Promise<Project> {
    this.acceptsWork();
    const { path: real, ...directory } = this.#deps.directories.resolve(path);
    this.#refuseOverlap(real);
    if (this.size >= this.#deps.config.maxProjects)
      throw new Fault(
        "PROJECT_LIMIT",
        `Cannot create a project: there are ${this.size} already (limits.max_projects)`,
      );
    const now = this.#deps.clock.now().toISOString();
    const project = this.#open({ ...blank, path: real, directory, trusted, ...born(now) }, null);
    this.#counted();
    this.#updated(project);
    try {
      await this.#deps.store.save(project.metadata);
    } catch (error) {
      await this.delete(project.id);
      throw error;
    }
    return project;
  }

  /** Forgets a project, its log and metadata. Resolves once that is on the disk. */
  async delete(id: string): Promise<void> {
    const project = this.get(id);
    if (project.executing)
      throw new Fault("PROCESS_ACTIVE", "Cannot delete the project: a run is in progress");
    this.#byId.delete(id);
    for (const executionId of project.waiting) this.#queue.remove(executionId);
    this.#counted();
    this.announce("project_deleted", {}, id);
    await project.close();
    await this.#deps.store.remove(id);
  }

  /** The project of a directory, if it is one. */
  at(path: string): Project | undefined {
    return [...this.#byId.values()].find((project) => project.path === path);
  }

  /** Cancels a device's queued prompts and, unless they are kept, ends its runs. */
  async forsake(deviceId: string, keepRuns: boolean): Promise<void> {
    await Promise.all(
      Array.from(this.#byId.values(), (project) => project.forsake(deviceId, keepRuns)),
    );
  }

  /** Tells everybody of directories that have gone, or have come back. */
  survey(): void {
    for (const project of this.#byId.values()) project.survey();
  }

  /** Whether the server is going down. */
  get draining(): boolean {
    return this.#draining;
  }

  /** Throws once the server is going down. */
  acceptsWork(): void {
    if (this.#draining)
      throw new Fault("SERVER_SHUTDOWN", "Cannot accept new work: the server is going down");
  }

  /** Tells everybody, takes no more work, waits up to `graceMs` for the runs, then ends them. */
  async drain(reason: string, graceMs: number): Promise<void> {
    const deadline = new Date(this.#deps.clock.now().getTime() + graceMs).toISOString();
    this.announce("server_shutdown", { reason, deadline });
    this.#draining = true;
    this.#queue.close();
    const projects = [...this.#byId.values()];
    for (const project of projects) this.#hurry(project);
    const { promise: late, resolve } = Promise.withResolvers<void>();
    using timers = new DisposableStack();
    timers.use(this.#deps.clock.after(graceMs, resolve));
    await Promise.race([late, Promise.all(projects.map((project) => project.idle()))]);
    await Promise.all(projects.map((project) => project.stop("shutdown")));
  }

  /** Ends every run by force, at once. */
  async abandon(): Promise<void> {
    await Promise.all(Array.from(this.#byId.values(), (project) => project.abandon()));
  }

  /** Ends everything, and leaves every log closed in order. */
  async close(): Promise<void> {
    this.#draining = true;
    this.#queue.close();
    const closing = Array.from(this.#byId.values(), async (project) => {
      await project.close();
      await this.#deps.store.save(project.metadata);
    });
    const failed = (await Promise.allSettled(closing)).filter(
      ({ status }) => status === "rejected",
    );
    for (const error of failed)
      this.#deps.telemetry.log("error", "cannot close a project in order", { error });
  }

  /** Tells every client, joined or not. */
  announce<T extends LobbyType>(type: T, data: ServerData<T>, project_id?: string): void {
    const timestamp = this.#deps.clock.now().toISOString();
    const { text } = encode(type, JSON.stringify(data), { project_id, timestamp });
    this.#publisher.publish(lobby, type, text);
  }

  #restore(metadata: ProjectMetadata): void {
    const { telemetry } = this.#deps;
    try {
      this.#settle(this.#open(metadata, metadata.log));
    } catch (error) {
      // A disk that cannot be written must not keep the server from starting.
      telemetry.log("error", "cannot restore a project", { project_id: metadata.id, error });
      const reason = error instanceof Error ? error.message : String(error);
      this.#problems.push(`Project ${metadata.id}: ${reason}`);
    }
  }

  /** Says in its history how a project was found; as soon as there is room for that. */
  #settle(project: Project): void {
    if (this.#draining || this.#byId.get(project.id) !== project) return;
    try {
      project.recover();
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      this.#deps.clock.after(storageRetryMs, () => this.#settle(project));
    }
  }

  #open(metadata: ProjectMetadata, recorded: LogState | null): Project {
    const { store, clock, telemetry } = this.#deps;
    const { id } = metadata;
    const { log, repairs } = store.openLog(id, recorded, () => this.#byId.get(id)?.save());
    for (const repair of repairs)
      telemetry.log("warn", repair.message, { project_id: id, ...repair.details });
    const feed = new Feed({ projectId: id, log, repairs, publisher: this.#publisher, clock });
    // After an orderly end the metadata was written last, and says what the log does.
    const known = recorded && !recorded.clean ? restore(metadata, log) : metadata;
    const project = new Project(known, feed, this.#deps);
    this.#byId.set(id, project);
    return project;
  }

  #refuseOverlap(path: string): void {
    for (const { id, path: other } of this.#byId.values()) {
      if (other === path)
        throw new Fault(
          "PROJECT_EXISTS",
          `Cannot create a project: ${quote(path)} is one already`,
          {
            project_id: id,
          },
        );
      const above = path.startsWith(`${other}/`);
      if (above || other.startsWith(`${path}/`))
        throw new Fault(
          "PROJECT_NESTING",
          `Cannot create a project: ${quote(path)} lies ${above ? "inside" : "around"} the project ${quote(other)}`,
          { path: other, project_id: id },
        );
    }
  }

  /** Whether a directory is trusted: a project's word for all that lies in it, else the CLI's record. */
  #trusts(path: string): boolean {
    const around = [...this.#byId.values()].find(
      (project) => path === project.path || path.startsWith(`${project.path}/`),
    );
    return around ? around.trusts(path) : this.#deps.runner.trusts(path);
  }

  /** While the server goes down nobody is waited for who would have to answer the agent. */
  #hurry(project: Project): void {
    if (this.#draining && project.permissions.length > 0) void project.stop("shutdown");
  }

  #updated(project: Project): void {
    // What a deleted project still does on its way out is nobody's business.
    if (this.#byId.get(project.id) !== project) return;
    this.announce("project_updated", project.snapshot, project.id);
    let pending = 0;
    for (const { permissions } of this.#byId.values()) pending += permissions.length;
    this.#deps.telemetry.gauge("permissions_pending", {}, pending);
    this.#queue.schedule();
    this.#hurry(project);
  }

  #counted(): void {
    this.#deps.telemetry.gauge("projects_total", {}, this.size);
  }
}

const blank = {
  version: 1,
  session_proven: false,
  permission_mode: null,
  model: null,
  fork: false,
  remembered: { rules: [], directories: [] },
  open_permissions: [],
  queued: 0,
  paused: false,
  state: "IDLE",
  session_id: null,
  usage: { cost_usd: 0, input_tokens: 0, output_tokens: 0, runs: 0, duration_ms: 0 },
  error: null,
  log: null,
} as const;

const born = (now: string) => ({ id: crypto.randomUUID(), created_at: now, last_active: now });
const quote = (text: string): string => JSON.stringify(text);
