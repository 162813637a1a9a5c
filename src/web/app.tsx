import type { Signal } from "@preact/signals";
import { Door, type Invitation } from "./door.tsx";
import { place } from "./place.ts";
import { ProjectsPane } from "./projects-pane.tsx";
import { ProjectView } from "./project-view.tsx";
import { StatusBar } from "./status-bar.tsx";
import type { Store } from "./store.ts";
import { Trouble } from "./trouble.tsx";

/** The page: a door for strangers, else the projects and one of them. */
export function App({
  store,
  invitation,
}: {
  store: Store;
  invitation: Signal<Invitation | undefined>;
}) {
  const standing = store.link.standing.value;
  const conversation = store.conversation.value;
  if (standing.at === "door" || standing.at === "pairing")
    return (
      <Door
        store={store}
        standing={standing}
        invitation={invitation.value}
        key={invitation.value?.code}
      />
    );
  return (
    <div class={place.value.project ? "console in-project" : "console"}>
      <div class="side">
        <ProjectsPane store={store} />
        <StatusBar store={store} />
      </div>
      {conversation ? (
        <ProjectView store={store} conversation={conversation} />
      ) : (
        <main class="nothing">
          <p>
            {store.loaded.value
              ? "Choose a project."
              : standing.at === "offline"
                ? standing.why
                : "Connecting…"}
          </p>
        </main>
      )}
      <Trouble />
    </div>
  );
}
