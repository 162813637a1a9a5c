import type { Health } from "../contract/messages.ts";
import type { Config } from "../contract/options.ts";
import type { AgentRunner, Disk } from "../core/ports.ts";
import type { Projects } from "../core/projects.ts";

export interface HealthDeps {
  readonly config: Config;
  readonly version: string;
  readonly projects: Projects;
  readonly runner: AgentRunner;
  readonly disk: Disk;
  readonly connections: number;
  /** Seconds since the start. */
  readonly uptime: number;
  readonly resources: Health["resources"];
  /** Projects that could not be loaded, each with its reason. */
  readonly unloaded: readonly string[];
}

/** How the server and the agent are. Degraded means: it works, but a person should look. */
export async function health(deps: HealthDeps): Promise<Health> {
  const { config, projects } = deps;
  const { problem, ...claude } = await deps.runner.health();
  const failing = projects.failing;
  const problems = [
    ...(projects.draining ? ["The server is going down"] : []),
    ...(problem ? [problem] : []),
    ...(failing ? [failing.message] : []),
    ...(deps.disk.free() < config.minFreeDisk
      ? ["The disk is nearly full; no prompt is accepted (limits.min_free_disk)"]
      : []),
  ];
  const notes = deps.unloaded.map((project) => `A project was not loaded: ${project}`);
  return {
    status: projects.draining ? "unhealthy" : problems.length > 0 ? "degraded" : "healthy",
    uptime: deps.uptime,
    version: deps.version,
    connections: { active: deps.connections, limit: config.maxConnections },
    projects: {
      count: projects.size,
      limit: config.maxProjects,
      executing: projects.executing,
    },
    resources: deps.resources,
    claude,
    problems: [...problems, ...notes],
  };
}
