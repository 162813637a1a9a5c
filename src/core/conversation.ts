import type { Image, PermissionMode } from "../contract/agent-options.ts";
import { Fault } from "../contract/errors.ts";
import { exitFault } from "./agent-result.ts";
import { addedDirectory, type ResolvedOptions } from "./agent-request.ts";
import type { Approvals } from "./approvals.ts";
import type { Ledger } from "./ledger.ts";
import { type Heard, Listener, type ListenerHooks } from "./listener.ts";
import type { Directory } from "./ports.ts";
import type { ProjectDeps } from "./project.ts";
import type { Run } from "./run.ts";
import type { WarmAgent } from "./warm.ts";

/** One agent process, from its start until nothing of it is left. */
interface Live extends Heard, WarmAgent {
  /** Resolves when its last line has been dealt with and nothing of it is left. */
  readonly gone: Promise<void>;
  readonly hooks: ListenerHooks;
  /** With which trust it was started; another prompt with the same can go to the same process. */
  readonly trusted: boolean;
  /** What it was started in. */
  readonly directory: Directory;
  /** What it was given besides. */
  readonly added: readonly string[];
  /** Those whose prompts it has taken since it last had nothing left to do for anybody. */
  readonly devices: Set<string>;
  /** It has served a prompt before this one. */
  reused: boolean;
  closing: boolean;
  /** A person has killed it while it had no turn: what it begins by itself is killed too. */
  unwanted: boolean;
  timer?: Disposable;
}

/** How long a failed write waits before it is tried again. */
const storageRetryMs = 250;
/** How long an idle agent may go on with what runs in its background. */
const backgroundMs = 10 * 60_000;

/** A project's side of the talk: prompts go to an agent, which is started, kept warm and ended. */
export class Conversation {
  readonly #ledger: Ledger;
  readonly #approvals: Approvals;
  readonly #listener: Listener;
  readonly #deps: ProjectDeps;
  /** Checks the directory again, just before it is worked in. */
  readonly #directory: () => Directory;
  #live: Live | undefined;
  #closed = false;

  constructor(
    ledger: Ledger,
    approvals: Approvals,
    { deps, directory }: { deps: ProjectDeps; directory: () => Directory },
  ) {
    this.#ledger = ledger;
    this.#approvals = approvals;
    this.#listener = new Listener(ledger, approvals, deps.telemetry);
    this.#deps = deps;
    this.#directory = directory;
  }

  /** Sees a run through to its end. Never rejects: whatever happens ends as an event and a state. */
  async hold(run: Run, prompt: { text: string; images: readonly Image[] }): Promise<void> {
    let fault: Fault | undefined;
    try {
      fault = await this.#converse(run, prompt);
    } catch (error) {
      fault = error instanceof Fault ? error : this.#bug(run, error);
    }
    if (!run.over) await this.#finish(run, fault);
  }

  /** Makes the end that a run was asked for an immediate one. */
  force(): void {
    void this.#live?.agent.stop(true);
  }

  /** Changes the agent that is running now; one that is only warm is not worth the trouble. */
  async set(change: { permissionMode?: PermissionMode; model?: string | null }): Promise<void> {
    const live = this.#live;
    const { running } = this.#ledger.status;
    if (!running) return this.retire();
    // Its agent is not started yet.
    if (!live || live.closing) return this.#ledger.note({ running: { ...running, ...change } });
    const { permissionMode, model } = change;
    if (permissionMode !== undefined) await live.agent.setPermissionMode(permissionMode);
    if (model !== undefined) await live.agent.setModel(model);
    live.asked = { ...live.asked, ...change };
    if (this.#ledger.status.running) this.#ledger.note({ running: live.asked });
  }

  /** Lets an idle agent go, because the next prompt is not for it. */
  retire(): void {
    if (this.#live && !this.#ledger.run) this.#close(this.#live);
  }

  /** Whether an agent without a turn still does something in the background. */
  get busy(): boolean {
    return this.#live?.busy ?? false;
  }

  /** Whether what the agent does, or has left behind, may be a device's. */
  serves(deviceId: string): boolean {
    return this.#live?.devices.has(deviceId) ?? false;
  }

  /** Ends an agent without a turn, and what it does in the background, as a kill ends a run. */
  async end(force: boolean): Promise<void> {
    const live = this.#live;
    if (!live) return;
    live.closing = true;
    live.unwanted = true;
    this.#wake(live);
    await Promise.all([live.agent.stop(force), live.gone]);
  }

  /** Ends the agent; resolves once nothing of it is left. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#live) this.#close(this.#live);
    await this.#live?.gone;
  }

  /** Resolves when the agent has answered, or will not answer any more; says what went wrong. */
  async #converse(
    run: Run,
    prompt: { text: string; images: readonly Image[] },
  ): Promise<Fault | undefined> {
    await this.#deps.runner.swept(this.#ledger.id);
    for (;;) {
      // Looked up anew: it may be changed while the agent is not there yet.
      const { running } = this.#ledger.status;
      if (run.cause || !running) return run.fault;
      // oxlint-disable-next-line no-await-in-loop -- a second round replaces an agent that is gone
      const live = await this.#obtain(running);
      if (!live) continue;
      if (!live.busy) live.devices.clear();
      if (run.deviceId !== null) live.devices.add(run.deviceId);
      live.answered = false;
      live.agent.prompt(prompt.text, prompt.images);
      // oxlint-disable-next-line no-await-in-loop -- as above
      const fault = await this.#attend(run, live);
      const diedUnnoticed = live.reused && !live.answered;
      if (run.over || run.cause || !(live.restart || diedUnnoticed)) return fault;
    }
  }

  /** Waits until a turn is over, or the run is to be stopped, or the agent is gone. */
  async #attend(run: Run, live: Live): Promise<Fault | undefined> {
    await Promise.race([run.settled, run.stopped, live.gone]);
    if (run.over) return undefined;
    if (!run.cause) return exitFault(await live.agent.exit);
    await live.agent.stop(false);
    // What it still had to say waits for the disk; whoever stopped it need not.
    const { failing } = this.#ledger.feed;
    if (failing) run.fail(failing);
    await live.gone;
    return run.fault;
  }

  /** A turn that the agent has begun by itself. */
  async #attendUnsolicited(live: Live): Promise<void> {
    this.#wake(live);
    const { run } = this.#ledger;
    if (!run) return;
    if (live.unwanted) run.stop("kill");
    const fault = await this.#attend(run, live);
    if (!run.over) await this.#finish(run, fault);
  }

  /** The warm agent, if it fits; else a new one, or nothing while the old one is on its way out. */
  async #obtain(asked: ResolvedOptions): Promise<Live | undefined> {
    const { telemetry, warm } = this.#deps;
    const { trusted } = this.#ledger;
    const live = this.#live;
    const directory = this.#directory();
    const added = this.#added(asked);
    const wanted = fingerprint({ asked, trusted, directory });
    // What it was given may not be trusted any more; what it was allowed since then it has.
    const fits = live?.added.every((path) => added.includes(path)) && fingerprint(live) === wanted;
    if (live && !live.closing && fits) {
      telemetry.count("warm_hits_total", {});
      warm.delete(live);
      live.timer?.[Symbol.dispose]();
      live.reused = true;
      return live;
    }
    if (live) {
      this.#close(live);
      await live.gone;
      return undefined;
    }
    telemetry.count("warm_misses_total", {});
    return this.#start(asked, { directory, added });
  }

  /** Throws INVALID_PATH for a directory that is asked for and may not be added, or not any more. */
  #added({ options }: ResolvedOptions): string[] {
    const added = (options.add_dirs ?? []).map((path) => this.#add(path));
    for (const path of this.#ledger.status.remembered.directories) {
      try {
        added.push(this.#add(path));
      } catch (error) {
        if (!(error instanceof Fault)) throw error;
        // The agent asks again, which says enough to whoever allowed it.
        this.#log("warn", "a remembered directory is left out", { reason: error.code });
      }
    }
    return added;
  }

  #add(path: string): string {
    return addedDirectory(path, this.#ledger, this.#deps);
  }

  #start(asked: ResolvedOptions, place: Pick<Live, "directory" | "added">): Live {
    const { sessionId, fork, remembered } = this.#ledger.status;
    const { trusted } = this.#ledger;
    const { options } = asked;
    const agent = this.#deps.runner.start({
      projectId: this.#ledger.id,
      cwd: place.directory.path,
      trusted,
      permissionMode: asked.permissionMode,
      model: asked.model,
      options: {
        ...options,
        allowed_tools: [...(options.allowed_tools ?? []), ...remembered.rules],
        add_dirs: [...place.added],
      },
      session: {
        id: sessionId ?? crypto.randomUUID(),
        resume: sessionId !== null,
        fork: fork && sessionId !== null,
      },
    });
    const { promise: gone, resolve } = Promise.withResolvers<void>();
    const tasks = new Set<string>();
    const live: Live = {
      agent,
      gone,
      asked,
      trusted,
      ...place,
      devices: new Set(),
      costUsd: 0,
      answered: false,
      restart: false,
      retrying: false,
      reused: false,
      closing: false,
      unwanted: false,
      tasks,
      get busy() {
        return tasks.size > 0;
      },
      evict: () => this.#close(live),
      hooks: {
        turnBegan: () => void this.#attendUnsolicited(live),
        turnEnded: () => this.#rest(live),
        tasksChanged: () => this.#rest(live),
      },
    };
    this.#live = live;
    void this.#read(live).then(resolve);
    return live;
  }

  /** Reads an agent to its last line. Never rejects. */
  async #read(live: Live): Promise<void> {
    try {
      for await (const batch of live.agent.lines) {
        let rest = batch;
        const accept = () => {
          rest = rest.slice(this.#listener.accept(live, rest, live.hooks));
        };
        while (rest.length > 0) {
          try {
            accept();
          } catch (error) {
            if (!isStorageFault(error)) throw error;
            // oxlint-disable-next-line no-await-in-loop -- lines stay in order
            await this.#persist(accept);
          }
        }
      }
    } catch (error) {
      this.#log("error", "cannot go on reading the agent", { error });
      await live.agent.stop(true);
    }
    await live.agent.close();
    await this.#gone(live);
  }

  /** It is gone: what it asked needs no answer any more. */
  async #gone(live: Live): Promise<void> {
    this.#wake(live);
    if (this.#live === live) this.#live = undefined;
    try {
      await this.#persist(() => this.#approvals.withdrawAll("the agent ended", live.agent));
    } catch (error) {
      this.#log("error", "cannot withdraw what an agent asked", { error });
    }
  }

  async #finish(run: Run, fault: Fault | undefined): Promise<void> {
    try {
      await this.#persist(
        () => {
          this.#approvals.withdrawAll("the run ended");
          this.#ledger.finish(run, fault, { lead: [] });
        },
        (failed) => run.fail(failed),
      );
    } catch (error) {
      this.#log("error", "cannot log the end of a run", { execution_id: run.id, error });
      run.fail(error instanceof Fault ? error : this.#bug(run, error));
    }
  }

  /** Keeps an agent without a turn for a while, in case of another prompt. */
  #rest(live: Live): void {
    if (this.#ledger.run || live.closing) return;
    const { clock, config, warm } = this.#deps;
    live.timer?.[Symbol.dispose]();
    if (!live.busy && (config.claudeIdleTimeout === 0 || this.#closed)) return this.#close(live);
    live.timer = clock.after(live.busy ? backgroundMs : config.claudeIdleTimeout, () =>
      this.#close(live),
    );
    warm.add(live);
  }

  /** It is in use again, or gone. */
  #wake(live: Live): void {
    live.timer?.[Symbol.dispose]();
    this.#deps.warm.delete(live);
  }

  #close(live: Live): void {
    live.closing = true;
    this.#wake(live);
    void live.agent.close();
  }

  /** Tries a write until there is room for it. The agent is not read from meanwhile. */
  async #persist(write: () => void, failed?: (fault: Fault) => void): Promise<void> {
    for (;;) {
      try {
        return write();
      } catch (error) {
        if (!isStorageFault(error) || this.#closed) throw error;
        failed?.(error);
        this.#ledger.run?.heard();
        const { promise, resolve } = Promise.withResolvers<void>();
        this.#deps.clock.after(storageRetryMs, resolve);
        // oxlint-disable-next-line no-await-in-loop -- waits for the disk
        await promise;
      }
    }
  }

  #bug(run: Run, error: unknown): Fault {
    const correlation_id = crypto.randomUUID();
    this.#log("error", "a run failed for a reason of ours", {
      execution_id: run.id,
      correlation_id,
      error,
    });
    const text = "Cannot finish the run: the server failed";
    return new Fault("INTERNAL_ERROR", text, { correlation_id });
  }

  #log(level: "warn" | "error", text: string, fields: Record<string, unknown>): void {
    this.#deps.telemetry.log(level, text, { project_id: this.#ledger.id, ...fields });
  }
}

/** An agent whose directory was moved away goes on in that one, so it is of no use for a new one. */
function fingerprint(live: Pick<Live, "asked" | "trusted" | "directory">): string {
  const { asked, trusted, directory } = live;
  const { dev, ino } = directory;
  return JSON.stringify([asked.permissionMode, asked.model, asked.options, trusted, dev, ino]);
}

function isStorageFault(error: unknown): error is Fault {
  return error instanceof Fault && error.code === "STORAGE_ERROR";
}
