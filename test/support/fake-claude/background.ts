import { newCall } from "./tools.ts";
import type { Turn } from "./turn.ts";

/**
 * Begins a background task: it ends that long after the result, and then a turn begins by itself,
 * which does the given step.
 */
export async function startTask(turn: Turn, ms: number, step: string): Promise<void> {
  const { agent } = turn;
  const input = { command: "background", description: "d", run_in_background: true };
  const call = newCall(turn, "Bash", input);
  const id = `b${crypto.randomUUID().slice(0, 8)}`;
  const about = { task_id: id, tool_use_id: call.id };
  await turn.call(call);
  await agent.printer.system("task_started", {
    ...about,
    description: "d",
    task_type: "local_bash",
  });
  await turn.outcome(call, `Command running in background with ID: ${id}.`, {
    backgroundTaskId: id,
  });
  const finish = async (): Promise<void> => {
    await agent.printer.system("task_updated", {
      task_id: id,
      patch: { status: "completed", end_time: Date.now() },
    });
    await agent.printer.system("task_notification", {
      ...about,
      status: "completed",
      output_file: "",
      summary: `Background command "d" completed (exit code 0)`,
    });
    const prompt = `<task-notification>${id}</task-notification>\n${step}`.trimEnd();
    agent.enqueue(prompt, { kind: "task-notification" });
    agent.tasks.delete(id);
  };
  // Known from now on, so that an exit waits for it; but it ends only after the result.
  agent.tasks.set(id, { toolUseId: call.id, timer: setTimeout(() => undefined, 0) });
  agent.afterResult.push(() => {
    const timer = setTimeout(() => void finish(), ms);
    agent.tasks.set(id, { toolUseId: call.id, timer });
  });
}
