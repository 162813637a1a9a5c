import { expect } from "bun:test";
import type { ClientType, PermissionRequest, ServerType } from "../../src/contract/messages.ts";
import { AgentLog } from "./agent-log.ts";
import { agentsOf } from "./agents.ts";
import { type TestApp, testApp } from "./app.ts";
import { Client, type Frame } from "./client.ts";
import { asEvent, readLog, Story } from "./story.ts";

/** What happens next. Numbers choose a client, a project, or one of several of a kind. */
export type Step =
  | {
      readonly do: "execute";
      readonly who: Who;
      readonly script: string;
      readonly queue: boolean;
      readonly id: number | null;
    }
  | { readonly do: "answer"; readonly who: Who; readonly which: number; readonly how: Answer }
  | { readonly do: "kill"; readonly who: Who; readonly force: boolean }
  | { readonly do: "cancel"; readonly who: Who; readonly which: number }
  | { readonly do: "set"; readonly who: Who; readonly model: string | null }
  | { readonly do: "reset"; readonly who: Who }
  | { readonly do: "drop" | "join"; readonly seat: number }
  | { readonly do: "restart"; readonly drain: boolean }
  | { readonly do: "watch"; readonly who: Who; readonly ms: number };

export interface Who {
  readonly seat: number;
  readonly project: number;
}

export type Answer = "allow" | "deny" | "interrupt";

/** A client's place: the connection comes and goes, what was received stays. */
interface Seat {
  client: Client | undefined;
  readonly events: Map<string, Frame[]>;
}

const ladder = { interruptMs: 1_000, inputMs: 1_000, terminateMs: 200 };
const patienceMs = 40_000;
/** What a request may be refused for, when others are at work too. */
const refusals: Partial<Record<ClientType, readonly string[]>> = {
  execute: ["PROCESS_ACTIVE", "SERVER_SHUTDOWN"],
  permission_response: ["PERMISSION_RESOLVED", "PERMISSION_NOT_FOUND"],
  agent_kill: ["PROCESS_NOT_FOUND"],
  execution_cancel: ["EXECUTION_NOT_FOUND"],
  agent_set: ["EXECUTION_FAILED"],
  agent_new_session: ["PROCESS_ACTIVE"],
};
const replies: Partial<Record<ClientType, readonly ServerType[]>> = {
  execute: ["project_state", "execution_queued", "execution_status"],
  permission_response: ["permission_resolved"],
  agent_kill: ["project_state"],
  execution_cancel: ["execution_cancelled"],
  agent_set: ["project_state"],
  agent_new_session: ["session_reset"],
};

/** A server, its clients and its agents, in which steps are taken without waiting for each other. */
export class Interleaving {
  readonly #home: string;
  readonly #settings: Readonly<Record<string, string>>;
  readonly #seats: readonly Seat[];
  readonly #projects: string[] = [];
  readonly #log: AgentLog;
  /** Requests under way, and what went wrong with one. */
  readonly #requests = new Set<Promise<void>>();
  #problem: unknown;
  #app: TestApp;
  /** Ids that clients chose for prompts, and the prompts: the same id is the same prompt. */
  readonly #chosen = new Map<string, { execution_id: string; prompt: string }>();
  readonly #prompts = new Map<string, string>();
  readonly #accepted = new Set<string>();
  readonly #refused = new Set<string>();
  /** Prompts that were sent once without a reply: the client was gone. */
  readonly #unheard = new Set<string>();
  readonly #won = new Map<string, number>();

  private constructor(home: string, app: TestApp, settings: Readonly<Record<string, string>>) {
    this.#home = home;
    this.#app = app;
    this.#settings = settings;
    this.#log = new AgentLog(home);
    this.#seats = Array.from({ length: 3 }, () => ({
      client: undefined,
      events: new Map(),
    }));
  }

  /** Takes the steps, lets everything come to its end, and checks what is left. */
  static async play(
    home: string,
    settings: Readonly<Record<string, string>>,
    steps: readonly Step[],
  ): Promise<void> {
    const rates = { PA_LIMITS_EXECUTE_RATE: "100000", PA_LIMITS_MESSAGE_RATE: "100000" };
    const all = { ...rates, PA_TIMEOUTS_SHUTDOWN: "50ms", ...settings };
    const world = new Interleaving(home, await testApp(all, { home, ladder }), all);
    try {
      await world.#prepare();
      for (const step of steps) await world.#take(step);
      await world.#calm();
      await world.#check();
    } finally {
      await world.#app[Symbol.asyncDispose]();
    }
  }

  async #prepare(): Promise<void> {
    const client = await Client.connect(this.#app.url);
    for (const name of ["a", "b"])
      this.#projects.push(await client.create(await this.#app.directory(name)));
    await client[Symbol.asyncDispose]();
    await Promise.all(this.#seats.map((seat) => this.#join(seat)));
  }

  async #take(step: Step): Promise<void> {
    switch (step.do) {
      case "execute":
        return this.#execute(step);
      case "answer":
        return this.#answer(step);
      case "kill":
        return this.#send(step.who, ["agent_kill", { force: step.force }]);
      case "cancel":
        return this.#cancel(step);
      case "set":
        return this.#send(step.who, ["agent_set", { model: step.model }]);
      case "reset":
        return this.#send(step.who, ["agent_new_session"]);
      case "drop":
        return this.#drop(this.#seat(step.seat));
      case "join":
        return await this.#join(this.#seat(step.seat));
      case "restart":
        return await this.#restart(step.drain);
      case "watch":
        return await this.#watch(step);
    }
  }

  /** Gives the agent some time, but no more than until it asks or has done. */
  async #watch({ who, ms }: Extract<Step, { do: "watch" }>): Promise<void> {
    const client = this.#speaker(who);
    const project_id = this.#project(who);
    const deadline = performance.now() + ms;
    while (performance.now() < deadline) {
      await Bun.sleep(2);
      const last = client?.events(project_id).findLast(({ type }) => type === "project_state");
      if (last?.type === "project_state" && last.data.state !== "EXECUTING") return;
      if (client && permissions(client, project_id).length > 0) return;
    }
  }

  #seat(at: number): Seat {
    const seat = this.#seats[at % this.#seats.length];
    if (!seat) throw new Error("There is no such client");
    return seat;
  }

  /** The client in that place, or the next one that is connected. */
  #speaker({ seat }: Who): Client | undefined {
    const seats = this.#seats.map((_, at) => this.#seat(seat + at));
    return seats.find(({ client }) => client)?.client;
  }

  #project({ project }: Who): string {
    return this.#projects[project % this.#projects.length] ?? "";
  }

  /** Sends a request, if that client is there, and does not wait for its one reply. */
  #send(who: Who, [type, data]: [ClientType, object?], done?: (reply?: Frame) => void): void {
    const client = this.#speaker(who);
    if (!client) return;
    const ask = async () => {
      try {
        const reply = await client.ask(type, { project_id: this.#project(who), data });
        const allowed: readonly string[] =
          (reply.type === "error" ? refusals[type] : replies[type]) ?? [];
        expect(allowed).toContain(reply.type === "error" ? reply.data.code : reply.type);
        done?.(reply);
      } catch (error) {
        // Who is gone gets no reply; whether the request was heard is not known then.
        if (client.socket.readyState > WebSocket.OPEN) done?.();
        else this.#problem ??= error;
      }
    };
    const request = ask().finally(() => this.#requests.delete(request));
    this.#requests.add(request);
  }

  #execute({ who, script, queue, id }: Extract<Step, { do: "execute" }>): void {
    const fresh = () => {
      const execution_id = crypto.randomUUID();
      return { execution_id, prompt: `${script}\nsay:${execution_id}` };
    };
    const key = `${this.#project(who)} ${id}`;
    const { execution_id, prompt } = (id === null ? undefined : this.#chosen.get(key)) ?? fresh();
    if (id !== null) this.#chosen.set(key, { execution_id, prompt });
    this.#prompts.set(execution_id, prompt);
    this.#send(who, ["execute", { prompt, queue, execution_id }], (reply) => {
      const outcomes = reply?.type === "error" ? this.#refused : this.#accepted;
      (reply ? outcomes : this.#unheard).add(execution_id);
    });
  }

  #answer({ who, which, how }: Extract<Step, { do: "answer" }>): void {
    const client = this.#speaker(who);
    const requests = client ? permissions(client, this.#project(who)) : [];
    const request = requests[which % Math.max(1, requests.length)];
    if (request) this.#respond(who, request, how);
  }

  #respond(who: Who, { permission_id, kind }: PermissionRequest, how: Answer): void {
    const questions = kind === "question" ? { answers: { "Which colour?": "Red" } } : {};
    const data =
      how === "allow"
        ? { permission_id, decision: "allow", ...questions }
        : { permission_id, decision: "deny", interrupt: how === "interrupt" };
    this.#send(who, ["permission_response", data], (reply) => {
      if (reply?.type === "permission_resolved")
        this.#won.set(permission_id, (this.#won.get(permission_id) ?? 0) + 1);
    });
  }

  #cancel({ who, which }: Extract<Step, { do: "cancel" }>): void {
    const client = this.#speaker(who);
    const events = client?.events(this.#project(who)) ?? [];
    const queued = events.flatMap((frame) =>
      frame.type === "execution_queued" ? [frame.data.execution_id] : [],
    );
    const execution_id = queued.at(-1 - (which % Math.max(1, queued.length)));
    if (execution_id) this.#send(who, ["execution_cancel", { execution_id }]);
  }

  #drop(seat: Seat): void {
    const { client } = seat;
    if (!client) return;
    client.socket.terminate();
    this.#keep(seat, client);
  }

  /** What a client has received stays with it, for its next connection. */
  #keep(seat: Seat, client: Client): void {
    seat.client = undefined;
    this.#problem ??= client.problem;
    for (const project_id of this.#projects) {
      const before = seat.events.get(project_id) ?? [];
      seat.events.set(project_id, [...before, ...client.events(project_id)]);
    }
  }

  async #join(seat: Seat): Promise<void> {
    if (seat.client) return;
    const client = await Client.connect(this.#app.url);
    client.patienceMs = patienceMs;
    seat.client = client;
    for (const project_id of this.#projects) {
      const last = seat.events.get(project_id)?.at(-1)?.seq ?? 0;
      const { data } = await client.expect("project_joined", "project_join", {
        project_id,
        data: { after_seq: last },
      });
      expect(data).toMatchObject({ resume: "ok", from: last });
    }
  }

  async #catchUp({ client }: Seat): Promise<void> {
    for (const id of this.#projects)
      await client?.find(
        ({ type, project_id }) => type === "caught_up" && project_id === id,
        "the end of the replay",
      );
  }

  async #restart(drain: boolean): Promise<void> {
    const present = this.#seats.filter(({ client }) => client);
    if (drain) await this.#app.app.drain("restart");
    await this.#stop();
    this.#app = await testApp(this.#settings, { home: this.#home, ladder });
    await Promise.all(present.map((seat) => this.#join(seat)));
  }

  async #stop(): Promise<void> {
    await this.#app[Symbol.asyncDispose]();
    for (const seat of this.#seats) {
      const { client } = seat;
      if (!client) continue;
      await client.closed;
      this.#keep(seat, client);
    }
    expect(await agentsOf(this.#home)).toEqual([]);
  }

  /** Answers, stops and acknowledges until nothing runs, waits or asks. */
  async #calm(): Promise<void> {
    await Promise.all(this.#seats.map((seat) => this.#join(seat)));
    const deadline = AbortSignal.timeout(patienceMs);
    const client = this.#speaker({ seat: 0, project: 0 });
    if (!client) throw new Error("No client is there");
    for (;;) {
      await Promise.all(this.#requests);
      if (this.#problem) throw this.#problem;
      const { data } = await client.expect("project_list_response", "project_list");
      const restless = data.projects.filter(
        ({ state, queued }) => state === "EXECUTING" || queued > 0,
      );
      if (restless.length === 0) return;
      if (deadline.aborted) throw new Error(`No end: ${JSON.stringify(restless)}`);
      const running = restless.filter(({ state }) => state === "EXECUTING");
      // Where nothing runs, what waits may need a prompt to go on.
      for (const project of running.length > 0 ? running : restless) this.#soothe(client, project);
      await Bun.sleep(5);
    }
  }

  #soothe(client: Client, { id, state, execution }: Frame<"project_state">["data"]): void {
    const who = { seat: 0, project: this.#projects.indexOf(id) };
    for (const request of permissions(client, id)) this.#respond(who, request, "allow");
    const endless = this.#prompts.get(execution?.id ?? "")?.includes("hang");
    if (endless || state === "ERROR") this.#send(who, ["agent_kill"]);
    if (state === "IDLE")
      this.#execute({ do: "execute", who, script: "say:go on", queue: false, id: null });
  }

  async #check(): Promise<void> {
    await this.#stop();
    // What came to its end while the server went down is there for everybody afterwards.
    this.#app = await testApp(this.#settings, { home: this.#home, ladder });
    await Promise.all(this.#seats.map((seat) => this.#join(seat)));
    await Promise.all(this.#seats.map((seat) => this.#catchUp(seat)));
    await this.#stop();
    if (this.#problem) throw this.#problem;
    const done = new Set<string>();
    for (const project_id of this.#projects) {
      const records = readLog(this.#app.dataDir, project_id);
      const { begun, cancelled } = new Story(records);
      for (const id of [...begun, ...cancelled]) done.add(id);
      for (const { events } of this.#seats)
        expect<object[]>((events.get(project_id) ?? []).map(asSeen)).toEqual(records.map(asEvent));
    }
    this.#checkPrompts(done);
  }

  #checkPrompts(done: ReadonlySet<string>): void {
    for (const id of this.#accepted) expect(done).toContain(id);
    const never = [...this.#refused].filter(
      (id) => !this.#accepted.has(id) && !this.#unheard.has(id),
    );
    for (const id of never) expect(done).not.toContain(id);
    expect([...this.#won.values()].filter((times) => times > 1)).toEqual([]);
    // A warm agent that dies with a prompt in its hands is replaced, so that one is given twice.
    const given = this.#log.prompts().map((content) => JSON.stringify(content));
    if (given.some((prompt) => /exitafter|exit1/.test(prompt))) return;
    expect(given).toEqual([...new Set(given)]);
  }
}

const asSeen = ({ type, seq, timestamp, data }: Frame) => ({ type, seq, timestamp, data });

/** The requests of a project that a client knows to be open. */
function permissions(client: Client, project_id: string): PermissionRequest[] {
  const open = new Map<string, PermissionRequest>();
  for (const frame of client.received) {
    if (frame.project_id !== project_id) continue;
    if (frame.type === "project_joined")
      for (const request of frame.data.permissions) open.set(request.permission_id, request);
    if (frame.type === "permission_request") open.set(frame.data.permission_id, frame.data);
    if (frame.type === "permission_resolved") open.delete(frame.data.permission_id);
  }
  return [...open.values()];
}
