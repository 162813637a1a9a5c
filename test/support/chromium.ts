import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";

const binary = process.env["CHROMIUM"] ?? Bun.which("chromium") ?? "/usr/bin/chromium";
const flags = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--ignore-certificate-errors",
  "--remote-debugging-port=0",
];
const reply = v.looseObject({
  id: v.optional(v.number()),
  result: v.optional(v.looseObject({})),
  error: v.optional(v.looseObject({ message: v.string() })),
});
const evaluated = v.looseObject({
  result: v.looseObject({ value: v.optional(v.unknown()) }),
  exceptionDetails: v.optional(v.looseObject({ exception: v.optional(v.unknown()) })),
});

/** What a site of a test's own shows. */
export function emptyPage(): Response {
  return new Response("<!doctype html>", { headers: { "content-type": "text/html" } });
}

/** A real browser without a window, spoken to by its DevTools protocol. */
export class Chromium implements AsyncDisposable {
  readonly #child: ReturnType<typeof launch>;
  readonly #folder: string;
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, PromiseWithResolvers<object>>();
  #count = 0;

  private constructor(child: ReturnType<typeof launch>, folder: string, socket: WebSocket) {
    this.#child = child;
    this.#folder = folder;
    this.#socket = socket;
    socket.addEventListener("message", ({ data }) => this.#receive(String(data)));
  }

  /** Starts it, with flags besides those that every test needs. */
  static async start(more: readonly string[] = []): Promise<Chromium> {
    const folder = mkdtempSync(join(tmpdir(), "chromium-"));
    const child = launch(folder, more);
    const url = await devTools(child.stderr);
    const socket = new WebSocket(url);
    await new Promise((resolve, reject) => {
      socket.addEventListener("open", resolve);
      socket.addEventListener("error", reject);
    });
    return new Chromium(child, folder, socket);
  }

  /** Opens a page, and gives a function that evaluates an expression there, promises awaited. */
  async open(url: string): Promise<(expression: string) => Promise<unknown>> {
    const { targetId } = await this.#ask("Target.createTarget", { url });
    const { sessionId } = await this.#ask("Target.attachToTarget", { targetId, flatten: true });
    const session = String(sessionId);
    const evaluate = async (expression: string) => {
      const params = { expression, awaitPromise: true, returnByValue: true };
      const answer = v.parse(evaluated, await this.#ask("Runtime.evaluate", params, session));
      if (answer.exceptionDetails)
        throw new Error(`The page threw: ${JSON.stringify(answer.exceptionDetails)}`);
      return answer.result.value;
    };
    // Until it is there, what is put into the page is lost with the empty one before it.
    const there = `location.href !== "about:blank" && document.readyState === "complete"`;
    while (!(await evaluate(there))) await Bun.sleep(20);
    return evaluate;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
    this.#child.kill("SIGKILL");
    await this.#child.exited;
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 5 });
  }

  #ask(method: string, params: object, sessionId?: string): Promise<Record<string, unknown>> {
    this.#count += 1;
    const answer = Promise.withResolvers<Record<string, unknown>>();
    this.#waiting.set(this.#count, answer as PromiseWithResolvers<object>);
    this.#socket.send(JSON.stringify({ id: this.#count, method, params, sessionId }));
    return answer.promise;
  }

  #receive(text: string): void {
    const { id = 0, result, error } = v.parse(reply, JSON.parse(text));
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error) waiting?.reject(new Error(error.message));
    else waiting?.resolve(result ?? {});
  }
}

function launch(folder: string, more: readonly string[]) {
  return Bun.spawn([binary, ...flags, ...more, `--user-data-dir=${folder}`, "about:blank"], {
    stdin: "ignore",
    stdout: "ignore",
    stderr: "pipe",
  });
}

/** Where it listens, which it says on stderr. */
async function devTools(stderr: ReadableStream<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stderr) {
    text += decoder.decode(chunk, { stream: true });
    const [, url] = /DevTools listening on (ws:\S+)/.exec(text) ?? [];
    if (url) return url;
  }
  throw new Error(`Chromium did not start (Debian package chromium): ${text}`);
}
