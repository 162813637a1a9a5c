import { mkdir, mkdtemp, realpath, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { LadderTiming } from "../../src/adapters/claude/ladder.ts";
import { Metrics } from "../../src/adapters/metrics.ts";
import { type App, start } from "../../src/app.ts";
import { loadConfig } from "../../src/config.ts";
import { Client } from "./client.ts";

interface LogLine {
  readonly level: string;
  readonly text: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

export interface TestApp extends AsyncDisposable {
  readonly url: URL;
  readonly home: string;
  readonly dataDir: string;
  /** What the fake claude was started with and told: see `FAKE_CLAUDE_LOG`. */
  readonly agentLog: string;
  readonly metrics: Metrics;
  readonly lines: LogLine[];
  readonly app: App;
  /** A new empty directory that can be a project. */
  readonly directory: (name?: string) => Promise<string>;
  readonly client: () => Promise<Client>;
}

/** Lets everybody in, for tests of something else than that. */
export const open = {
  PA_SERVER_HOST: "127.0.0.1",
  PA_TLS_ENABLED: "false",
  PA_AUTH_MODE: "none",
  PA_INSECURE: "true",
} as const;

const fakeClaude = join(import.meta.dir, "fake-claude.ts");

/** A real server on a free port, a scratch home, and a fake claude; all gone at scope end. */
export async function testApp(
  settings: Readonly<Record<string, string>> = {},
  at?: { home?: string; ladder?: Partial<LadderTiming> },
): Promise<TestApp> {
  await using setup = new AsyncDisposableStack();
  const home = at?.home ?? (await scratch(setup));
  const dataDir = join(home, "data");
  const agentLog = join(home, "agent.jsonl");
  const env = {
    PATH: process.env["PATH"],
    HOME: home,
    FAKE_CLAUDE_LOG: agentLog,
    CLAUDE_CONFIG_DIR: join(home, ".claude"),
    ...Object.fromEntries(Object.entries(settings).filter(([name]) => !name.startsWith("PA_"))),
  };
  const config = loadConfig([], {
    HOME: home,
    ...open,
    PA_SERVER_PORT: "0",
    PA_DATA_DIR: dataDir,
    PA_CLAUDE_BINARY: fakeClaude,
    PA_CONNECTION_RATE: "1000",
    ...Object.fromEntries(Object.entries(settings).filter(([name]) => name.startsWith("PA_"))),
  });
  const metrics = new Metrics();
  const lines: LogLine[] = [];
  const log = (level: string, text: string, fields = {}) =>
    void lines.push({ level, text, fields });
  const app = setup.use(
    await start(config, {
      env,
      umask: 0o022,
      metrics,
      log,
      configPaths: [join(home, "config")],
      ...(at?.ladder && { ladder: at.ladder }),
    }),
  );
  const all = setup.move();
  return {
    url: app.url,
    home,
    dataDir,
    agentLog,
    metrics,
    lines,
    app,
    async directory(name = crypto.randomUUID()) {
      const path = join(home, "work", name);
      await mkdir(path, { recursive: true });
      return path;
    },
    client: async () =>
      all.use(await Client.connect(app.url, { ca: app.access.certificate?.cert })),
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}

/** A new folder that is removed at scope end. */
export async function scratch(stack: AsyncDisposableStack): Promise<string> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), "pocket-agent-")));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  return folder;
}
