import type { ClientMessage, ClientType, Health } from "../contract/messages.ts";
import type { ServerData, ServerType } from "../contract/messages.ts";
import type { Projects } from "../core/projects.ts";
import type { Connection } from "./connection.ts";

export interface HandlerContext {
  readonly connection: Connection;
  readonly projects: Projects;
  readonly health: () => Promise<Health>;
}

/** The one answer to a request. `after` runs right behind it, before anything else is sent. */
export type Reply = {
  [T in ServerType]: {
    readonly type: T;
    readonly project_id?: string;
    readonly after?: () => void;
  } & ({ readonly data: ServerData<T> } | { readonly json: string });
}[ServerType];

type Handlers = {
  [T in ClientType]: (message: ClientMessage<T>, context: HandlerContext) => Reply | Promise<Reply>;
};

/**
 * One function per client message. A new row in `clientMessages` does not compile without one.
 * What a handler does before its first `await` is done in the order in which the client asked.
 */
export const handlers: Handlers = {
  async project_create({ data }, { projects }) {
    const project = await projects.create(data.path, data.trusted ?? null);
    return { type: "project_state", data: project.snapshot, project_id: project.id };
  },

  project_list(_, { projects }) {
    return { type: "project_list_response", json: `{"projects":${projects.list()}}` };
  },

  async project_delete({ project_id }, { projects }) {
    await projects.delete(project_id);
    return { type: "project_deleted", data: {} };
  },

  project_join({ project_id, data }, { connection, projects }) {
    const project = projects.get(project_id);
    const { feed } = project;
    const { after_seq, epoch, deltas } = data ?? { deltas: true };
    const verdict = feed.resume(after_seq, epoch);
    const subscription = connection.join(project, { from: verdict.from, deltas });
    return {
      type: "project_joined",
      data: { ...project.snapshot, ...verdict, permissions: [...project.permissions] },
      after() {
        for (const { message, details } of feed.repairs)
          connection.send(
            "notice",
            { code: "LOG_REPAIRED", message, details: { ...details } },
            { project_id },
          );
        subscription.pump();
      },
    };
  },

  project_leave({ project_id }, { connection, projects }) {
    projects.get(project_id);
    connection.leave(project_id);
    return { type: "project_left", data: {} };
  },

  async execute({ project_id, data }, { connection, projects }) {
    projects.acceptsWork();
    const project = projects.get(project_id);
    connection.mayJoin(project_id);
    const { prompt, options, images } = data;
    const request = {
      prompt,
      options: options ?? {},
      images: images ?? [],
      device: null,
      queue: data.queue,
      execution_id: data.execution_id,
    };
    const accepted = project.execute(request, () => {
      if (connection.hasJoined(project_id)) return;
      connection.join(project, { from: project.feed.lastSeq, deltas: true }).pump();
    });
    await project.feed.log.sync();
    if (accepted.kind === "started") return { type: "project_state", data: accepted.state };
    const { kind, ...answer } = accepted;
    if (kind === "queued") await project.queueSaved();
    return "status" in answer
      ? { type: "execution_status", data: answer }
      : { type: "execution_queued", data: answer };
  },

  async execution_cancel({ project_id, data: { execution_id } }, { projects }) {
    const project = projects.get(project_id);
    project.cancelQueued(execution_id, "a person took it back");
    await project.queueSaved();
    return { type: "execution_cancelled", data: { execution_id } };
  },

  async project_trust({ project_id, data }, { projects }) {
    return { type: "project_state", data: await projects.get(project_id).trust(data.trusted) };
  },

  async agent_set({ project_id, data }, { projects }) {
    const project = projects.get(project_id);
    const { permission_mode: permissionMode, model } = data;
    const state = await project.set({
      ...(permissionMode === undefined ? {} : { permissionMode }),
      ...(model === undefined ? {} : { model }),
    });
    await project.saved();
    return { type: "project_state", data: state };
  },

  async permission_response({ project_id, data }, { projects }) {
    const project = projects.get(project_id);
    const resolution = project.respond(data, null);
    await (data.remember ? project.saved() : project.feed.log.sync());
    return { type: "permission_resolved", data: resolution };
  },

  async session_list({ project_id, data }, { projects }) {
    const sessions = await projects.get(project_id).sessions(data?.limit ?? 50);
    return { type: "session_list_response", data: { sessions } };
  },

  async session_resume({ project_id, data }, { projects }) {
    const project = projects.get(project_id);
    const state = await project.resumeSession(data.session_id, data.fork);
    await project.saved();
    return { type: "project_state", data: state };
  },

  async agent_kill({ project_id, data }, { projects }) {
    const state = await projects.get(project_id).kill(data?.force ?? false);
    return { type: "project_state", data: state };
  },

  async agent_new_session({ project_id }, { projects }) {
    const project = projects.get(project_id);
    const previous_session_id = project.newSession();
    await project.saved();
    return { type: "session_reset", data: { previous_session_id } };
  },

  get_messages({ project_id, data }, { projects }) {
    const { records, hasMore } = projects.get(project_id).feed.log.page(data ?? { limit: 1000 });
    // The records' own text: what the agent printed passes untouched, and nothing is parsed.
    const lines = records.map(({ line }) => line).join(",");
    return { type: "messages_response", json: `{"messages":[${lines}],"has_more":${hasMore}}` };
  },

  async health(_, { health }) {
    return { type: "health_status", data: await health() };
  },

  ping() {
    return { type: "pong", data: {} };
  },
};
