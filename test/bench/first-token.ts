import { startModelApi } from "../support/model-api.ts";
import { realClaude } from "../support/real-claude.ts";
import { compare, type Figure, type Pair } from "./figure.ts";
import type { Lab } from "./lab.ts";

const rounds = 3;
const warmPrompts = 15;
const prompt = "stream:20";
const args = [
  "-p",
  "--output-format=stream-json",
  "--verbose",
  "--input-format=stream-json",
  "--permission-prompt-tool=stdio",
  "--include-partial-messages",
  "--permission-mode=default",
  // As the server starts it in a directory that nobody has trusted.
  "--setting-sources=user",
  "--strict-mcp-config",
];

/** Somebody to whom prompts can be given, one after the other. */
interface Conversation extends AsyncDisposable {
  /** Milliseconds from a prompt to the first piece of its answer; waits for the rest. */
  readonly firstToken: () => Promise<number>;
}

interface Claude {
  readonly binary: string;
  readonly env: (home: string) => Readonly<Record<string, string>>;
}

/** Time to the first token of the real CLI on a scripted API: driven directly, and through us. */
export async function firstToken(lab: Lab): Promise<Figure[]> {
  await using api = startModelApi();
  const { binary, environment } = await realClaude();
  const claude: Claude = { binary, env: (home) => environment(home, api.url) };
  const cold: Pair[] = [];
  const warm: Pair[] = [];
  for (let round = 0; round < rounds; round += 1) {
    await using floor = directly(lab, claude);
    await using ours = await throughServer(lab, claude);
    // The first prompt has the CLI started; those that follow find it running.
    cold.push(await pair(floor, ours));
    for (let prompts = 0; prompts < warmPrompts; prompts += 1) warm.push(await pair(floor, ours));
  }
  const what = "time to first token, real CLI, beside the CLI alone";
  return [
    compare(warm, "difference", { what: `${what}, warm`, unit: "ms", budget: { most: 3 } }),
    compare(cold, "difference", { what: `${what}, cold`, unit: "ms", budget: null }),
  ];
}

async function pair(floor: Conversation, ours: Conversation): Promise<Pair> {
  return { floor: await floor.firstToken(), ours: await ours.firstToken() };
}

async function throughServer(lab: Lab, { binary, env }: Claude): Promise<Conversation> {
  const home = lab.folder();
  const server = await lab.server({ ...env(home), PA_CLAUDE_BINARY: binary }, home);
  const project_id = await server.project();
  // A server that has just started is still asking the CLI who it is.
  await (await server.client()).expect("health_status", "health");
  const socket = new WebSocket(new URL("/ws", server.url.replace("http", "ws")));
  await new Promise((resolve) => socket.addEventListener("open", resolve, { once: true }));
  return {
    firstToken: () => ask(socket, project_id),
    async [Symbol.asyncDispose]() {
      socket.close();
      await server[Symbol.asyncDispose]();
    },
  };
}

/** A plain client: one that checks frames would take time from the API in the same process. */
async function ask(socket: WebSocket, project_id: string): Promise<number> {
  const { promise: over, resolve, reject } = Promise.withResolvers<void>();
  const begin = performance.now();
  let first = Number.NaN;
  const listen = ({ data }: MessageEvent) => {
    const frame = String(data);
    if (Number.isNaN(first) && isToken(frame)) first = performance.now() - begin;
    if (frame.startsWith('{"type":"error"')) reject(new Error(`Cannot measure: ${frame}`));
    const isState = frame.startsWith('{"type":"project_state"') && frame.includes('"seq":');
    if (isState && !frame.includes('"state":"EXECUTING"')) resolve();
  };
  socket.addEventListener("message", listen);
  socket.send(JSON.stringify({ type: "execute", project_id, data: { prompt } }));
  await over;
  socket.removeEventListener("message", listen);
  return first;
}

function directly(lab: Lab, { binary, env }: Claude): Conversation {
  const home = lab.folder();
  const cwd = lab.folder();
  const child: { process?: Bun.Subprocess<"pipe", "pipe", "ignore"> } = {};
  let lines: AsyncIterator<string> | undefined;
  const start = () => {
    const argv = [binary, ...args, `--session-id=${crypto.randomUUID()}`];
    const options = {
      cwd,
      env: env(home),
      stdin: "pipe",
      stdout: "pipe",
      stderr: "ignore",
    } as const;
    child.process = Bun.spawn(argv, options);
    lines = linesOf(child.process.stdout);
    return child.process;
  };
  return {
    async firstToken() {
      const begin = performance.now();
      const { stdin } = child.process ?? start();
      const message = { role: "user", content: [{ type: "text", text: prompt }] };
      void stdin.write(`${JSON.stringify({ type: "user", message, parent_tool_use_id: null })}\n`);
      void stdin.flush();
      let first = Number.NaN;
      for (;;) {
        const next = await lines?.next();
        if (!next || next.done) throw new Error("Cannot measure: the CLI ended without a result");
        if (Number.isNaN(first) && isToken(next.value)) first = performance.now() - begin;
        if (next.value.startsWith('{"type":"result"')) return first;
      }
    },
    async [Symbol.asyncDispose]() {
      void child.process?.stdin.end();
      await child.process?.exited;
    },
  };
}

async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of stream) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
}

function isToken(text: string): boolean {
  return text.includes('"content_block_delta"');
}
