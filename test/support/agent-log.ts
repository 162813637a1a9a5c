import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

type Fields = Readonly<Record<string, unknown>>;

/** How the fake CLI was started as an agent; not the questions to it, such as `--version`. */
export interface AgentStart {
  readonly pid: number;
  readonly argv: readonly string[];
  readonly marker: string;
  readonly env: readonly string[];
}

/** What the fake CLI has recorded: see FAKE_CLAUDE_LOG there. */
export class AgentLog {
  readonly #path: string;

  constructor(home: string) {
    this.#path = join(home, "agent.jsonl");
  }

  /** Events of some kinds, oldest first. */
  all(...kinds: readonly string[]): Fields[] {
    if (!existsSync(this.#path)) return [];
    const lines = readFileSync(this.#path, "utf8").split("\n");
    // What follows the last line feed is being written.
    const whole: Fields[] = lines.slice(0, -1).map((line) => JSON.parse(line));
    return whole.filter(({ event }) => kinds.includes(String(event)));
  }

  /** The agents that were started, oldest first. */
  starts(): AgentStart[] {
    return this.all("start").flatMap((line) => startOf(line) ?? []);
  }

  /** For each agent that was started: those that had been started before and had not ended. */
  overlaps(): { readonly agent: AgentStart; readonly others: readonly AgentStart[] }[] {
    const running = new Map<unknown, AgentStart>();
    return this.all("start", "exit").flatMap((line) => {
      const agent = startOf(line);
      if (!agent) {
        running.delete(line["pid"]);
        return [];
      }
      const others = [...running.values()];
      running.set(agent.pid, agent);
      return [{ agent, others }];
    });
  }

  /** The agent that was started last. */
  last(): AgentStart {
    const last = this.starts().at(-1);
    if (!last) throw new Error("No agent was started");
    return last;
  }

  /** The messages of one type that agents were given, oldest first. */
  told(type: "user" | "control_request" | "control_response"): Fields[] {
    return this.all("stdin").flatMap(({ line }) => {
      const message: Fields = typeof line === "object" ? { ...line } : {};
      return message["type"] === type ? [message] : [];
    });
  }

  /** The content of every prompt that agents were given, oldest first. */
  prompts(): unknown[] {
    return this.told("user").map(({ message }) => {
      const said: Fields = typeof message === "object" ? { ...message } : {};
      return said["content"];
    });
  }

  /** The pids that the fake CLI started for commands and daemons. */
  children(): number[] {
    return this.all("child").map(({ child }) => Number(child));
  }
}

function startOf({ event, pid, argv, marker, env }: Fields): AgentStart | undefined {
  if (event !== "start" || typeof pid !== "number" || typeof marker !== "string") return undefined;
  return { pid, argv: strings(argv), marker, env: strings(env) };
}

function strings(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [];
}
