import type { Client } from "../support/client.ts";
import { startModelApi } from "../support/model-api.ts";
import { realClaude } from "../support/real-claude.ts";
import { compare, type Figure, type Pair } from "./figure.ts";
import type { Lab } from "./lab.ts";

const rounds = 5;
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
  const pairs: Pair[] = [];
  for (let round = 0; round < rounds; round += 1) {
    const floor = await cold(() => directly(lab, claude));
    pairs.push({ floor, ours: await cold(() => throughServer(lab, claude)) });
  }
  return [
    compare(pairs, "difference", {
      what: "time to first token, cold, real CLI, beside the CLI alone",
      unit: "ms",
      budget: null,
    }),
  ];
}

/** The first prompt of a conversation: the CLI has to be started. */
async function cold(begin: () => Promise<Conversation>): Promise<number> {
  await using conversation = await begin();
  return await conversation.firstToken();
}

async function throughServer(lab: Lab, { binary, env }: Claude): Promise<Conversation> {
  const home = lab.folder();
  const server = await lab.server({ ...env(home), PA_CLAUDE_BINARY: binary }, home);
  const project_id = await server.project();
  const client = await server.client();
  return {
    firstToken: () => ask(client, project_id),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

async function ask(client: Client, project_id: string): Promise<number> {
  const first = Promise.withResolvers<number>();
  const begin = performance.now();
  const listen = ({ data }: MessageEvent) => {
    if (isToken(String(data))) first.resolve(performance.now() - begin);
  };
  client.socket.addEventListener("message", listen);
  client.send("execute", { project_id, data: { prompt } });
  const { state, error } = await client.settled(project_id);
  client.socket.removeEventListener("message", listen);
  if (state !== "IDLE") throw new Error(`Cannot measure: the run failed: ${error?.message}`);
  return await first.promise;
}

function directly(lab: Lab, { binary, env }: Claude): Promise<Conversation> {
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
  return Promise.resolve({
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
  });
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
