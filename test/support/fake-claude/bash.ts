import { record } from "./record.ts";
import { Interrupted } from "./turn.ts";

/** What a command left behind. */
interface Done {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const LAST_OUTPUT_MS = 50;

/**
 * Runs a command in a session of its own, as the CLI does: a signal to the CLI or to its process
 * group leaves the command alive, only an interrupt kills it.
 */
export async function runBash(command: string, signal: AbortSignal): Promise<Done> {
  const child = Bun.spawn(["sh", "-c", command], {
    detached: true,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, CLAUDECODE: "1" },
  });
  record("child", { child: child.pid, command });
  const kill = (): void => killGroup(child.pid);
  signal.addEventListener("abort", kill, { once: true });
  const output = [collect(child.stdout), collect(child.stderr)] as const;
  const code = await child.exited;
  signal.removeEventListener("abort", kill);
  if (signal.aborted) throw new Interrupted();
  // A daemon left behind may hold the pipes open for ever.
  await Promise.race([Promise.all(output.map(({ ended }) => ended)), Bun.sleep(LAST_OUTPUT_MS)]);
  return { code, stdout: output[0].text(), stderr: output[1].text() };
}

/** Leaves a daemon behind: a session of its own, no terminal, no parent; it inherits the environment. */
export async function startDaemon(command: string): Promise<void> {
  const script = 'nohup sh -c "$1" >/dev/null 2>&1 & echo $!';
  const shell = Bun.spawn(["sh", "-c", script, "sh", command], {
    detached: true,
    stdin: "ignore",
    stdout: "pipe",
  });
  record("child", { child: Number(await shell.stdout.text()), command });
}

function collect(stream: ReadableStream<Uint8Array>): { ended: Promise<void>; text: () => string } {
  const chunks: Uint8Array[] = [];
  const read = async (): Promise<void> => {
    for await (const chunk of stream) chunks.push(chunk);
  };
  return { ended: read(), text: () => Buffer.concat(chunks).toString() };
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It is gone already.
  }
}
