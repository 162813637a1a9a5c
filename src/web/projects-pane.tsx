import { useState } from "preact/hooks";
import type { ProjectState } from "../contract/messages.ts";
import { NewProject } from "./new-project.tsx";
import { place } from "./place.ts";
import type { Store } from "./store.ts";
import { Visible } from "./visible-text.tsx";
import { ago, baseName, cost } from "./wording.ts";

/** All projects: those that wait for somebody first. */
export function ProjectsPane({ store }: { store: Store }) {
  const [creating, setCreating] = useState(false);
  const projects = store.ordered.value;
  return (
    <nav class="projects" aria-label="Projects">
      <header>
        <h1>Projects</h1>
        {store.may("full") && (
          <button type="button" onClick={() => setCreating(true)}>
            New
          </button>
        )}
      </header>
      {store.loaded.value && projects.length === 0 && (
        <p class="hint">
          A project is a directory on the server in which the agent works.{" "}
          {store.may("full") ? "Begin with New." : "This device may not make one."}
        </p>
      )}
      <ul>
        {projects.map((project) => (
          <li key={project.id}>
            <Row project={project} current={place.value.project === project.id} />
          </li>
        ))}
      </ul>
      {creating && <NewProject store={store} close={() => setCreating(false)} />}
    </nav>
  );
}

function Row({ project, current }: { project: ProjectState; current: boolean }) {
  const { pending_permissions: pending, path, usage } = project;
  return (
    <a
      href={`#/projects/${project.id}`}
      class="project"
      aria-current={current ? "page" : undefined}
    >
      <span class={`dot ${pending > 0 ? "waiting" : project.state.toLowerCase()}`} />
      <span class="names">
        <b>
          <Visible text={baseName(path)} />
        </b>
        <small>
          <Visible text={path} />
        </small>
      </span>
      <span class="facts">
        <span class={pending > 0 ? "badge" : undefined}>{stateText(project)}</span>
        <small>
          {usage.cost_usd > 0 && `${cost(usage.cost_usd)} · `}
          {ago(project.last_active)}
        </small>
      </span>
    </a>
  );
}

/** How it stands with a project, in a word or two. */
export function stateText({
  pending_permissions: pending,
  state,
  available,
  queued,
}: ProjectState): string {
  if (pending > 0) return pending === 1 ? "needs you" : `needs you (${pending})`;
  if (!available) return "directory is gone";
  if (state === "EXECUTING") return queued > 0 ? `working, ${queued} queued` : "working";
  if (state === "ERROR") return "failed";
  return queued > 0 ? `${queued} queued` : "idle";
}
