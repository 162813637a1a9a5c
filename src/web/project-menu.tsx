import { useEffect, useState } from "preact/hooks";
import type { ProjectState } from "../contract/messages.ts";
import { Copy } from "./code.tsx";
import type { Conversation } from "./conversation.ts";
import { Dialog } from "./dialog.tsx";
import type { Reply } from "./link.ts";
import type { Store } from "./store.ts";
import { Visible } from "./visible-text.tsx";
import { ago, cost, duration } from "./wording.ts";

const modes = [
  ["default", "Ask before changes"],
  ["acceptEdits", "Edit files unasked"],
  ["plan", "Only plan"],
  ["dontAsk", "Refuse, never ask"],
  ["auto", "A classifier decides"],
  ["bypassPermissions", "Never ask"],
] as const;
const models = ["opus", "sonnet", "haiku"];

interface Props {
  readonly store: Store;
  readonly conversation: Conversation;
  readonly close: () => void;
}

/** Everything about a project that is not the conversation. */
export function ProjectMenu({ store, conversation, close }: Props) {
  const project = conversation.state.value;
  const full = store.may("full");
  return (
    <Dialog title="This project" close={close}>
      {full && <Choices {...{ store, project }} />}
      {full && project.trusted && <Untrust {...{ store, project }} />}
      <Facts project={project} />
      {full && <Sessions {...{ store, conversation, close }} />}
      {full && <Delete {...{ store, project, close }} />}
    </Dialog>
  );
}

function Choices({ store, project }: { store: Store; project: ProjectState }) {
  const set = (data: { permission_mode?: (typeof modes)[number][0]; model?: string | null }) =>
    store.attempt(async () => void (await store.ask("agent_set", { project: project.id, data })));
  const known = project.model === null || models.includes(project.model);
  return (
    <>
      <label>
        Mode
        <select
          value={project.permission_mode}
          onChange={({ currentTarget }) => {
            const mode = modes.find(([name]) => name === currentTarget.value)?.[0];
            // What is shown is what the server says.
            currentTarget.value = project.permission_mode;
            if (mode) set({ permission_mode: mode });
          }}
        >
          {modes.map(([name, about]) => (
            <option value={name}>{about}</option>
          ))}
        </select>
      </label>
      <label>
        Model
        <select
          value={project.model ?? ""}
          onChange={({ currentTarget }) => {
            const model = currentTarget.value || null;
            currentTarget.value = project.model ?? "";
            set({ model });
          }}
        >
          <option value="">Default</option>
          {models.map((name) => (
            <option value={name}>{name}</option>
          ))}
          {!known && <option value={project.model ?? ""}>{project.model}</option>}
        </select>
      </label>
    </>
  );
}

function Untrust({ store, project }: { store: Store; project: ProjectState }) {
  const data = { trusted: false };
  const untrust = async () => {
    await store.ask("project_trust", { project: project.id, data });
  };
  return (
    <p class="hint">
      Trusted: its own settings, hooks and MCP servers take effect.{" "}
      <button type="button" class="quiet" onClick={() => store.attempt(untrust)}>
        Do not trust it any more
      </button>
    </p>
  );
}

function Facts({
  project: { path, usage, resume_command: resume, trusted },
}: {
  project: ProjectState;
}) {
  return (
    <dl>
      <dt>Directory</dt>
      <dd class="mono">
        <Visible text={path} />
        {trusted ? "" : " (not trusted)"}
      </dd>
      <dt>So far</dt>
      <dd>
        {usage.runs} {usage.runs === 1 ? "run" : "runs"}, {duration(usage.duration_ms)},{" "}
        {cost(usage.cost_usd)}, {usage.input_tokens.toLocaleString()} tokens in,{" "}
        {usage.output_tokens.toLocaleString()} out
      </dd>
      {resume && (
        <>
          <dt>Go on in a terminal</dt>
          <dd class="mono">
            <Visible text={resume} /> <Copy text={resume} />
          </dd>
        </>
      )}
    </dl>
  );
}

function Sessions({ store, conversation, close }: Props) {
  const [sessions, setSessions] = useState<Reply<"session_list">["sessions"] | undefined>(
    undefined,
  );
  const { id: project, state, session_id: current } = conversation.state.value;
  const idle = state !== "EXECUTING";
  useEffect(() => {
    store.attempt(async () =>
      setSessions((await store.ask("session_list", { project }))?.sessions),
    );
  }, [project]);
  const resume = (session_id: string, fork: boolean) =>
    store.attempt(async () => {
      if (await store.ask("session_resume", { project, data: { session_id, fork } })) close();
    });
  const begin = async () => {
    if (await store.ask("agent_new_session", { project })) close();
  };
  return (
    <section class="sessions" aria-label="Sessions">
      <header>
        <h3>Sessions</h3>
        <button type="button" disabled={!idle} onClick={() => store.attempt(begin)}>
          New session
        </button>
      </header>
      {!idle && <p class="hint">Not while it works.</p>}
      <ul>
        {sessions?.map((session) => (
          <li key={session.session_id}>
            <span class="names">
              <b>
                <Visible text={session.title || session.first_prompt || "Untitled"} />
              </b>
              <small>
                {ago(session.updated_at)}, {session.messages} messages
                {session.open_in_terminal && ", open in a terminal"}
                {session.session_id === current && ", goes on here"}
              </small>
            </span>
            <span>
              <button
                type="button"
                disabled={!idle || session.open_in_terminal || session.session_id === current}
                onClick={() => resume(session.session_id, false)}
              >
                Resume
              </button>
              <button
                type="button"
                class="quiet"
                disabled={!idle}
                onClick={() => resume(session.session_id, true)}
              >
                Fork
              </button>
            </span>
          </li>
        ))}
        {sessions?.length === 0 && <li class="hint">None yet</li>}
      </ul>
    </section>
  );
}

function Delete({
  store,
  project,
  close,
}: {
  store: Store;
  project: ProjectState;
  close: () => void;
}) {
  const [sure, setSure] = useState(false);
  const remove = async () => {
    if (await store.ask("project_delete", { project: project.id })) close();
  };
  if (!sure)
    return (
      <button type="button" class="quiet danger" onClick={() => setSure(true)}>
        Delete this project…
      </button>
    );
  return (
    <div class="banner error">
      <span>Its history here is deleted for good. The directory and what is in it stay.</span>
      <button
        type="button"
        class="deny"
        disabled={project.state === "EXECUTING"}
        onClick={() => store.attempt(remove)}
      >
        Delete the history
      </button>
      <button type="button" class="quiet" onClick={() => setSure(false)}>
        Keep it
      </button>
    </div>
  );
}
