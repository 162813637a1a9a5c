import { useState } from "preact/hooks";
import { Approvals } from "./approvals.tsx";
import type { Conversation } from "./conversation.ts";
import { ProjectMenu } from "./project-menu.tsx";
import { PromptBox } from "./prompt-box.tsx";
import { stateText } from "./projects-pane.tsx";
import { StandingText } from "./status-bar.tsx";
import type { Store } from "./store.ts";
import { Timeline } from "./timeline.tsx";
import { Visible } from "./visible-text.tsx";
import { baseName, cost } from "./wording.ts";

/** One project: what was said, what is asked, and where one says more. */
export function ProjectView({ store, conversation }: { store: Store; conversation: Conversation }) {
  const [menu, setMenu] = useState(false);
  const project = conversation.state.value;
  const standing = store.link.standing.value;
  const unsent = store.outbox.unsent.value.filter(({ projectId }) => projectId === project.id);
  return (
    <main class="conversation">
      <header>
        <a href="#/" class="back" aria-label="All projects">
          ‹
        </a>
        <div class="names">
          <h2>
            <Visible text={baseName(project.path)} />
          </h2>
          <small>
            {/* While it catches up, what is shown of the state may be old. */}
            {standing.at !== "online"
              ? "No connection"
              : conversation.level.value
                ? stateText(project)
                : "Catching up"}
            {project.usage.cost_usd > 0 && ` · ${cost(project.usage.cost_usd)}`}
          </small>
        </div>
        <button
          type="button"
          class="quiet icon"
          aria-label="More about this project"
          onClick={() => setMenu(true)}
        >
          ⋯
        </button>
      </header>
      <Banner store={store} conversation={conversation} />
      <Timeline store={store} conversation={conversation} unsent={unsent} key={project.id} />
      <Approvals store={store} conversation={conversation} />
      {store.may("full") ? (
        <PromptBox store={store} conversation={conversation} key={`box ${project.id}`} />
      ) : (
        <p class="hint watching">
          This device may {store.may("approve") ? "answer what the agent asks" : "only watch"}.
        </p>
      )}
      {menu && (
        <ProjectMenu store={store} conversation={conversation} close={() => setMenu(false)} />
      )}
    </main>
  );
}

/** What a person should know before anything else about this project. */
function Banner({ store, conversation }: { store: Store; conversation: Conversation }) {
  const { trusted, available, id, path } = conversation.state.value;
  const standing = store.link.standing.value;
  // Between two tries it does not come and go.
  if (standing.at !== "online")
    return (
      <div class="banner over">
        <span>
          <StandingText standing={standing} />
        </span>
        <button type="button" onClick={() => store.link.wake()}>
          Try now
        </button>
      </div>
    );
  if (!available)
    return (
      <div class="banner error" role="alert">
        The directory{" "}
        <code>
          <Visible text={path} />
        </code>{" "}
        is not there any more.
      </div>
    );
  // What the agent asks needs the room.
  if (trusted || !store.may("full") || conversation.permissions.value.length > 0) return null;
  return (
    <div class="banner">
      <span>
        Not trusted: its own settings, hooks and MCP servers are left out, because they run
        commands.
      </span>
      <button
        type="button"
        onClick={() =>
          store.attempt(
            async () =>
              void (await store.ask("project_trust", { project: id, data: { trusted: true } })),
          )
        }
      >
        Trust it
      </button>
    </div>
  );
}
