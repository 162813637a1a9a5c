/** A conversation that was begun in a terminal goes on here, and the other way round. */
import { expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Session } from "../../src/contract/messages.ts";
import { realClaude } from "../support/real-claude.ts";
import { Lab, type Project, run } from "./lab.ts";

const { binary, environment } = await realClaude();

/** The real CLI in a terminal of tmux's; typed into, and gone at scope end. */
class Terminal implements Disposable {
  readonly #socket = `pocket-agent-${crypto.randomUUID()}`;

  constructor(lab: Lab, { path }: Project) {
    const env: Record<string, string> = { ...environment(lab.home, lab.api.url), TERM: "xterm" };
    const key = env["ANTHROPIC_API_KEY"]?.slice(-20) ?? "";
    // What a person has answered before: the greeting, the key, the trust in this folder.
    const settings = {
      hasCompletedOnboarding: true,
      customApiKeyResponses: { approved: [key], rejected: [] },
      projects: { [path]: { hasTrustDialogAccepted: true, hasCompletedProjectOnboarding: true } },
    };
    const folder = env["CLAUDE_CONFIG_DIR"] ?? lab.home;
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, ".claude.json"), JSON.stringify(settings));
    const assignments = Object.entries(env).map(([name, value]) => `${name}=${value}`);
    this.#tmux(
      "new-session",
      "-d",
      "-x",
      "120",
      "-y",
      "40",
      "-c",
      path,
      "env",
      "-i",
      ...assignments,
      binary,
    );
  }

  type(text: string): void {
    this.#tmux("send-keys", "-l", text);
    this.#tmux("send-keys", "Enter");
  }

  get screen(): string {
    return this.#tmux("capture-pane", "-p");
  }

  async shows(text: string): Promise<void> {
    const signal = AbortSignal.timeout(30_000);
    while (!this.screen.includes(text)) {
      if (signal.aborted) throw new Error(`The terminal does not show ${text}:\n${this.screen}`);
      await Bun.sleep(100);
    }
  }

  [Symbol.dispose](): void {
    this.#tmux("kill-server");
  }

  #tmux(...words: string[]): string {
    const { stdout, stderr, exitCode } = Bun.spawnSync(["tmux", "-L", this.#socket, ...words]);
    if (exitCode !== 0 && words[0] !== "kill-server")
      throw new Error(`tmux ${words[0]} failed (Debian package tmux): ${stderr.toString()}`);
    return stdout.toString();
  }
}

test("a session that was begun in a terminal is refused while it is open, and resumed after", async () => {
  await using lab = await Lab.start();
  const client = await lab.client();
  const project = await lab.project(client);
  const project_id = project.id;
  const list = async () => {
    const { data } = await client.expect("session_list_response", "session_list", { project_id });
    return data.sessions;
  };
  const until = async (holds: (sessions: readonly Session[]) => boolean) => {
    const signal = AbortSignal.timeout(20_000);
    for (;;) {
      const sessions = await list();
      if (holds(sessions)) return sessions;
      if (signal.aborted) throw new Error(`Sessions: ${JSON.stringify(sessions)}`);
      await Bun.sleep(100);
    }
  };
  let session_id = "";
  {
    using terminal = new Terminal(lab, project);
    await terminal.shows("for shortcuts");
    terminal.type("say:The word is heron");
    await terminal.shows("● The word is heron");
    const [session] = await until((sessions) => sessions.some((one) => one.open_in_terminal));
    expect(session).toMatchObject({
      first_prompt: "say:The word is heron",
      open_in_terminal: true,
    });
    session_id = session?.session_id ?? "";
    const refused = await client.expect("error", "session_resume", {
      project_id,
      data: { session_id },
    });
    expect(refused.data).toMatchObject({ code: "SESSION_ACTIVE" });

    const copy = { session_id, fork: true };
    await client.expect("project_state", "session_resume", { project_id, data: copy });
    const forked = await run(client, project_id, { prompt: "say:In the copy" });
    expect(forked.session_id).not.toBe(session_id);
    expect(lab.conversation).toContain("The word is heron");
    terminal.type("/exit");
  }
  await until((sessions) => !sessions.some((one) => one.open_in_terminal));
  await client.expect("project_state", "session_resume", { project_id, data: { session_id } });
  const resumed = await run(client, project_id, { prompt: "say:Indeed" });
  expect(resumed).toMatchObject({ state: "IDLE", session_id });
  expect(lab.conversation).toContain("The word is heron");
  expect(lab.conversation).not.toContain("In the copy");
  expect(resumed.resume_command).toContain(`claude --resume ${session_id}`);
});
