import * as v from "valibot";
import {
  handlers as accessHandlers,
  operations as accessOperations,
  type AdministrationParts,
  type Results as AccessResults,
} from "../access/administration.ts";
import { backup, type BackupResult } from "../adapters/backup.ts";
import { Fault } from "../contract/errors.ts";
import type { ProjectState } from "../contract/messages.ts";
import type { Project } from "../core/project.ts";
import type { Projects } from "../core/projects.ts";

/** What the owner of this machine may ask for, and with which arguments. */
export const operations = {
  ...accessOperations,
  "projects.list": v.strictObject({}),
  "projects.create": v.strictObject({
    path: v.pipe(v.string(), v.nonEmpty()),
    trusted: v.nullable(v.boolean()),
  }),
  "projects.delete": v.strictObject({ project: v.pipe(v.string(), v.nonEmpty()) }),
  backup: v.strictObject({ to: v.pipe(v.string(), v.startsWith("/")) }),
} as const;
export type Operation = keyof typeof operations;

/** What is answered. */
export interface Results extends AccessResults {
  "projects.list": { projects: ProjectState[] };
  "projects.create": { project: ProjectState };
  "projects.delete": { project: ProjectState };
  backup: BackupResult;
}

export interface OperationParts extends AdministrationParts {
  readonly projects: Projects;
  /** Told now and then how much of a long work is done. */
  readonly progress: (bytes: number, of: number) => void;
}

type Handlers = {
  [O in Operation]: (
    input: v.InferOutput<(typeof operations)[O]>,
    parts: OperationParts,
  ) => Results[O] | Promise<Results[O]>;
};

const handlers: Handlers = {
  ...accessHandlers,

  "projects.list"(_, { projects }) {
    return { projects: [...projects].map(({ snapshot }) => snapshot) };
  },

  async "projects.create"({ path, trusted }, { access, projects }) {
    const project = await projects.create(path, trusted);
    access.audit.record("project_created", { project_id: project.id, trusted });
    return { project: project.snapshot };
  },

  async "projects.delete"({ project: text }, { access, projects }) {
    const project = find(text, projects);
    const { snapshot } = project;
    await projects.delete(project.id);
    access.audit.record("project_deleted", { project_id: project.id });
    return { project: snapshot };
  },

  async backup({ to }, { config, projects, progress }) {
    const all = [...projects];
    await Promise.all(all.map((project) => project.queueSaved()));
    const metadata = new Map(all.map((project) => [project.id, project.metadata]));
    return await backup(config.dataDir, to, { metadata, progress });
  },
};

/** Does what is asked for. Rejects with a Fault that says what is wrong. */
export async function operate<O extends Operation>(
  operation: O,
  input: unknown,
  parts: OperationParts,
): Promise<Results[O]> {
  const parsed = v.safeParse(operations[operation], input);
  if (!parsed.success) throw new Fault("INVALID_MESSAGE", parsed.issues[0].message);
  // The one cast: the input was checked against the schema that the operation names.
  const handler = handlers[operation] as (
    input: unknown,
    parts: OperationParts,
  ) => Results[O] | Promise<Results[O]>;
  return await handler(parsed.output, parts);
}

/** A project by its id, the beginning of it, or its path. */
function find(text: string, projects: Projects): Project {
  const found = [...projects].filter(({ id, path }) => path === text || id.startsWith(text));
  const [project] = found;
  if (project && found.length === 1) return project;
  const message = project
    ? `Cannot tell the project: several begin with "${text}"`
    : `Cannot find the project: none has the path "${text}", or an id that begins so`;
  throw new Fault("PROJECT_NOT_FOUND", message);
}
