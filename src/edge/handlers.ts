import type { Access } from "../access/access.ts";
import type { AuditEvent } from "../access/audit.ts";
import type { Identity } from "../access/authentication.ts";
import type { WebPush } from "../notifications/web-push.ts";
import { type CloseCode, Fault } from "../contract/errors.ts";
import type { AgentOptions } from "../contract/agent-options.ts";
import type {
  ClientMessage,
  ClientType,
  Health,
  ServerData,
  ServerType,
} from "../contract/messages.ts";
import type { Directories } from "../core/ports.ts";
import type { Projects } from "../core/projects.ts";
import { accessHandlers } from "./access-handlers.ts";
import type { Connection } from "./connection.ts";
import { messages } from "./page.ts";
import { pushHandlers } from "./push-handlers.ts";

/** All who are connected, by their devices. */
export interface Clients {
  /** Gives a connection to a device; throws RESOURCE_LIMIT when there are too many. */
  readonly enter: (connection: Connection, identity: Identity) => void;
  /** Whether a device is connected. */
  readonly has: (deviceId: string) => boolean;
}

export interface HandlerContext {
  readonly connection: Connection;
  readonly projects: Projects;
  readonly directories: Directories;
  readonly access: Access;
  readonly clients: Clients;
  readonly webPush: WebPush;
  /** Shuts a device out at once; resolves when that is on the disk and nothing of it runs. */
  readonly revoke: Revoke;
  readonly health: () => Promise<Health>;
  /** Notes in the audit log what this connection's device did. */
  readonly audit: (event: AuditEvent, fields: Readonly<Record<string, unknown>>) => void;
}

/** `spare` is a connection of the device itself, which still gets its reply. */
export type Revoke = (
  deviceId: string,
  how: { keepRuns: boolean; spare?: Connection },
) => Promise<void>;

/** The one answer to a request. `after` runs right behind it, before anything else is sent. */
export type Reply = {
  [T in ServerType]: {
    readonly type: T;
    readonly project_id?: string;
    readonly after?: () => void;
    /** The connection ends behind this reply. */
    readonly closes?: CloseCode;
  } & ({ readonly data: ServerData<T> } | { readonly json: string });
}[ServerType];

export type Handlers = {
  [T in ClientType]: (message: ClientMessage<T>, context: HandlerContext) => Reply | Promise<Reply>;
};

/**
 * One function per client message. A new row in `clientMessages` does not compile without one.
 * What a handler does before its first `await` is done in the order in which the client asked.
 */
export const handlers: Handlers = {
  ...accessHandlers,
  ...pushHandlers,

  async project_create({ data }, { projects, audit }) {
    const project = await projects.create(data.path, data.trusted ?? null);
    audit("project_created", { project_id: project.id, trusted: data.trusted });
    return { type: "project_state", data: project.snapshot, project_id: project.id };
  },

  project_list(_, { projects }) {
    return { type: "project_list_response", json: `{"projects":${projects.list()}}` };
  },

  async project_delete({ project_id }, { projects, audit }) {
    await projects.delete(project_id);
    audit("project_deleted", { project_id });
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

  project_view({ project_id, data }, { connection, projects }) {
    projects.get(project_id);
    connection.view(project_id, data.visible);
    return { type: "project_viewed", data };
  },

  async execute({ project_id, data }, { connection, projects, audit }) {
    const project = projects.get(project_id);
    connection.mayJoin(project_id);
    const { prompt, options, images } = data;
    const request = {
      prompt,
      options: options ?? {},
      images: images ?? [],
      device: connection.actor,
      queue: data.queue,
      execution_id: data.execution_id,
    };
    const accepted = project.execute(request, () => {
      // What became of a prompt that was taken before can be asked to the end.
      projects.acceptsWork();
      if (connection.hasJoined(project_id)) return;
      connection.join(project, { from: project.feed.lastSeq, deltas: true }).pump();
    });
    audit("execution", {
      project_id,
      outcome: accepted.kind,
      execution_id:
        accepted.kind === "started" ? accepted.state.execution?.id : accepted.execution_id,
      prompt_length: prompt.length,
      images: request.images.length,
      ...weighty(request.options),
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

  async project_trust({ project_id, data }, { projects, audit }) {
    const project = projects.get(project_id);
    audit("project_trusted", { project_id, trusted: data.trusted });
    return { type: "project_state", data: await project.trust(data.trusted) };
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

  async permission_response({ project_id, data }, { connection, projects, audit }) {
    const project = projects.get(project_id);
    const { actor: device, scope } = connection;
    // Who may send this has a scope; the type does not know.
    if (scope === "none") throw new Fault("UNAUTHORIZED");
    const resolution = project.respond(data, { device, scope });
    const { permission_id, decision, updated_input, remember = false, interrupt = false } = data;
    const changed = updated_input !== undefined;
    audit("permission", { project_id, permission_id, decision, changed, remember, interrupt });
    await (data.remember ? project.saved() : project.feed.log.sync());
    return { type: "permission_resolved", data: resolution };
  },

  async session_list({ project_id, data }, { projects }) {
    const sessions = await projects.get(project_id).sessions(data?.limit ?? 50);
    return { type: "session_list_response", data: { sessions } };
  },

  async session_resume({ project_id, data }, { connection, projects }) {
    const project = projects.get(project_id);
    const state = await project.resumeSession(data.session_id, data.fork, connection.actor);
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
    const page = projects.get(project_id).feed.log.page(data ?? { limit: 1000 });
    return { type: "messages_response", json: messages(page) };
  },

  async directory_list({ data }, { directories, projects }) {
    const listing = await directories.list(data?.path);
    const entries = listing.entries.map((entry) => {
      const project_id = projects.at(entry.path)?.id;
      return project_id === undefined ? entry : { ...entry, project_id };
    });
    return { type: "directory_list_response", data: { ...listing, entries } };
  },

  async health(_, { health }) {
    return { type: "health_status", data: await health() };
  },

  ping() {
    return { type: "pong", data: {} };
  },
};

/** The options that change what an agent may do, of which some are lists of what people wrote. */
function weighty(options: AgentOptions): Readonly<Record<string, unknown>> {
  const { permission_mode, dangerously_skip_permissions, mcp_config } = options;
  const { allowed_tools, disallowed_tools, add_dirs } = options;
  return {
    permission_mode,
    dangerously_skip_permissions,
    mcp_config: mcp_config ? true : undefined,
    allowed_tools: allowed_tools?.length,
    disallowed_tools: disallowed_tools?.length,
    add_dirs: add_dirs?.length,
  };
}
