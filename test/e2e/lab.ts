import { setDefaultTimeout } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { ProjectState } from "../../src/contract/messages.ts";
import { type AgentProcess, agentsOf } from "../support/agents.ts";
import { scratch } from "../support/app.ts";
import { Client } from "../support/client.ts";
import { type ModelApi, startModelApi } from "../support/model-api.ts";
import { realClaude } from "../support/real-claude.ts";
import { ServerProcess } from "../support/server-process.ts";

setDefaultTimeout(60_000);

const claude = await realClaude();
/** The CLI takes a second to start, and several on a machine that is busy. */
const patienceMs = 30_000;

/** The server as a process, with the real CLI, a scripted model, and a home that nobody else has. */
export class Lab implements AsyncDisposable {
  readonly home: string;
  readonly api: ModelApi;
  readonly #stack: AsyncDisposableStack;
  readonly #settings: Readonly<Record<string, string>>;
  #server: ServerProcess;

  private constructor(
    stack: AsyncDisposableStack,
    parts: Pick<Lab, "home" | "api"> & {
      server: ServerProcess;
      settings: Readonly<Record<string, string>>;
    },
  ) {
    this.home = parts.home;
    this.api = parts.api;
    this.#server = parts.server;
    this.#settings = parts.settings;
    this.#stack = stack;
  }

  /** Starts it all. `extra` is added to what the server gets to see. */
  static async start(extra: Readonly<Record<string, string>> = {}): Promise<Lab> {
    await using stack = new AsyncDisposableStack();
    const home = await scratch(stack);
    const api = stack.use(startModelApi());
    const settings = {
      ...claude.environment(home, api.url),
      PA_CLAUDE_BINARY: claude.binary,
      PA_TIMEOUTS_SHUTDOWN: "1s",
      ...extra,
    };
    // After a crash that no server has come back from, nobody else would end what it left.
    stack.defer(async () => {
      for (const { pid } of await agentsOf(home)) process.kill(pid, "SIGKILL");
    });
    const server = await ServerProcess.start({ home, settings });
    const lab = new Lab(stack.move(), { home, api, server, settings });
    lab.#stack.defer(() => lab.#server[Symbol.asyncDispose]());
    return lab;
  }

  get server(): ServerProcess {
    return this.#server;
  }

  /** A new connection. */
  async client(): Promise<Client> {
    const client = this.#stack.use(await Client.connect(this.#server.url));
    client.patienceMs = patienceMs;
    return client;
  }

  /** Makes a project of a new directory. */
  async project(client: Client): Promise<Project> {
    const path = join(this.home, "work", crypto.randomUUID());
    await mkdir(path, { recursive: true });
    return { id: await client.create(path), path };
  }

  /** Starts the server again, once it has ended. */
  async restart(): Promise<void> {
    this.#server = await ServerProcess.start({ home: this.home, settings: this.#settings });
  }

  /** Everything that an agent of this server has started and that is alive, the agent included. */
  async agents(): Promise<readonly AgentProcess[]> {
    return await agentsOf(this.home);
  }

  /** Waits until what the agents have started is as asked. */
  async until(holds: (agents: readonly AgentProcess[]) => boolean): Promise<void> {
    const signal = AbortSignal.timeout(patienceMs);
    for (;;) {
      const agents = await this.agents();
      if (holds(agents)) return;
      if (signal.aborted) throw new Error(`Processes: ${JSON.stringify(agents)}`);
      await Bun.sleep(50);
    }
  }

  /** The texts of the conversation as the model was last told it; other calls are for titles. */
  get conversation(): readonly string[] {
    const last = this.api.requests.findLast(({ body }) => body?.tools?.length)?.body;
    return (last?.messages ?? [])
      .filter(({ role }) => role !== "system")
      .flatMap(({ content }) =>
        typeof content === "string" ? [content] : content.map(({ text = "" }) => text),
      )
      .filter((text) => text !== "" && !text.startsWith("<system-reminder>"));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}

export interface Project {
  readonly id: string;
  readonly path: string;
}

/** Sends a prompt that must be accepted. */
export async function execute(
  client: Client,
  project_id: string,
  request: { prompt: string; options?: object },
): Promise<ProjectState> {
  return (await client.expect("project_state", "execute", { project_id, data: request })).data;
}

/** Runs a prompt to its end, and gives the state it leads to. */
export async function run(
  client: Client,
  project_id: string,
  request: { prompt: string; options?: object },
): Promise<ProjectState> {
  const { last_seq } = await execute(client, project_id, request);
  const { data } = await client.next(
    "project_state",
    ({ seq = 0, data: { id, state } }) =>
      id === project_id && seq > last_seq && state !== "EXECUTING",
  );
  return data;
}
