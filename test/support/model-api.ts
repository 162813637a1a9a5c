/**
 * A scripted stand-in for the Anthropic Messages API: no network, no model. The last text that the
 * user typed decides the answer, read as one directive per line (or parted by " ;; "):
 *
 *   say:TEXT   stream:N   big:BYTES   slow:SECONDS   thinking:TEXT
 *   bash:CMD   write:FILE   read:FILE   edit:FILE:OLD:NEW   todo   ask   plan[:TEXT]   webfetch:URL
 *   tool:NAME:JSON   parallel:N[:CMD]   loop:N   subagent:[Nx ]PROMPT
 *   error:STATUS[:MODEL]   flaky:N   hang   stall   cut   midstream   maxtokens   refusal
 *
 * Tools run one round after the other; once the last has its result, the closing text is that of
 * `say`, or "done: RESULT".
 */
import { decide, type Decision, type ModelRequest, type Part } from "./model-script.ts";

/** A request as it came in, for assertions. */
interface RecordedRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: ModelRequest | undefined;
}

/** The running stand-in. Disposing of it ends all its connections. */
export interface ModelApi extends AsyncDisposable {
  readonly url: string;
  readonly requests: readonly RecordedRequest[];
}

type Answer = Extract<Decision, { kind: "answer" }>;

const ERRORS: Readonly<Record<number, readonly [type: string, message: string]>> = {
  400: ["invalid_request_error", "scripted 400"],
  401: ["authentication_error", "invalid x-api-key"],
  403: ["permission_error", "scripted 403"],
  404: ["not_found_error", "scripted 404"],
  413: ["request_too_large", "scripted 413"],
  429: ["rate_limit_error", "This request would exceed your rate limit"],
  529: ["overloaded_error", "Overloaded"],
};

/** Starts the stand-in on a free port of the loopback interface. */
export function startModelApi(): ModelApi {
  const requests: RecordedRequest[] = [];
  const failures = new Map<string, number>();
  const server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    idleTimeout: 0,
    maxRequestBodySize: 256 * 1024 * 1024,
    fetch: async (request) => {
      const { pathname: path } = new URL(request.url);
      const posted = request.method === "POST" && path.startsWith("/v1/messages");
      // The one cast: what the CLI posts here is the API's own format.
      const body = posted ? ((await request.json()) as ModelRequest) : undefined;
      requests.push({
        method: request.method,
        path,
        headers: Object.fromEntries(request.headers),
        body,
      });
      if (!body) return new Response(null, { status: path === "/" ? 200 : 404 });
      if (path === "/v1/messages/count_tokens") {
        return Response.json({ input_tokens: Math.ceil(JSON.stringify(body).length / 4) });
      }
      return respond(decide(body, failures), body, request.signal);
    },
  });
  return {
    url: `http://127.0.0.1:${server.port}`,
    requests,
    [Symbol.asyncDispose]: () => server.stop(true),
  };
}

async function respond(
  decision: Decision,
  body: ModelRequest,
  signal: AbortSignal,
): Promise<Response> {
  if (decision.kind === "failure") return failure(decision.status);
  if (decision.kind === "stall") {
    await aborted(signal);
    return failure(500);
  }
  const message = {
    id: newId("msg"),
    type: "message",
    role: "assistant",
    model: body.model,
    stop_sequence: null,
  };
  const headers = { "request-id": newId("req") };
  if (!body.stream) {
    const content = decision.parts.map(blockOf);
    const stop_reason = decision.stop;
    return Response.json({ ...message, content, stop_reason, usage: usage(content) }, { headers });
  }
  return new Response(events(decision, message, signal), {
    headers: { ...headers, "content-type": "text/event-stream" },
  });
}

async function* events(
  { parts, stop, end }: Answer,
  message: object,
  signal: AbortSignal,
): AsyncGenerator<string> {
  const start = { ...message, content: [], stop_reason: null, usage: usage([]) };
  yield event("message_start", { message: start });
  yield event("ping", {});
  const blocks = parts.map(blockOf);
  for (const [index, part] of parts.entries()) {
    const content_block = emptied(blocks[index] ?? {});
    yield event("content_block_start", { index, content_block });
    for (const delta of deltas(part)) {
      yield event("content_block_delta", { index, delta });
      if (part.kind === "text" && part.delayMs) await Bun.sleep(part.delayMs);
      if (signal.aborted) return;
    }
    // However the answer is to break off, it does so inside its last block.
    if (end && index === parts.length - 1) break;
    yield event("content_block_stop", { index });
  }
  if (end === "hang") await aborted(signal);
  if (end === "error") yield event("error", { error: errorOf(529) });
  // Resets the connection. Bun prints the error, which harms nothing.
  if (end === "cut") throw new Error("scripted cut");
  if (end) return;
  const delta = { stop_reason: stop, stop_sequence: null };
  yield event("message_delta", { delta, usage: { output_tokens: usage(blocks).output_tokens } });
  yield event("message_stop", {});
}

function event(type: string, data: object): string {
  return `event: ${type}\ndata: ${JSON.stringify({ type, ...data })}\n\n`;
}

function blockOf(part: Part): object {
  if (part.kind === "text") return { type: "text", text: part.pieces.join("") };
  if (part.kind === "thinking") {
    return { type: "thinking", thinking: part.text, signature: "ZmFrZQ==" };
  }
  return { type: "tool_use", id: newId("toolu"), name: part.name, input: part.input };
}

/** What a block is when it starts, before its deltas. */
function emptied(block: object): object {
  const empty = { text: "", thinking: "", signature: "", input: {} };
  return Object.fromEntries(
    Object.entries(block).map(([key, value]) => [
      key,
      key in empty ? Reflect.get(empty, key) : value,
    ]),
  );
}

function deltas(part: Part): readonly object[] {
  if (part.kind === "text") return part.pieces.map((text) => ({ type: "text_delta", text }));
  if (part.kind === "thinking") {
    return [
      { type: "thinking_delta", thinking: part.text },
      { type: "signature_delta", signature: "ZmFrZQ==" },
    ];
  }
  const pieces = JSON.stringify(part.input).match(/.{1,40}/gs) ?? [];
  return pieces.map((partial_json) => ({ type: "input_json_delta", partial_json }));
}

function usage(blocks: readonly object[]) {
  return {
    input_tokens: 10,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: 0,
    output_tokens: Math.ceil(JSON.stringify(blocks).length / 4),
    service_tier: "standard",
  };
}

function failure(status: number): Response {
  const id = newId("req");
  return Response.json(
    { type: "error", error: errorOf(status), request_id: id },
    { status, headers: { "request-id": id, ...(status === 429 ? { "retry-after": "1" } : {}) } },
  );
}

function errorOf(status: number): { type: string; message: string } {
  const [type, message] = ERRORS[status] ?? ["api_error", `scripted ${status}`];
  return { type, message };
}

function newId(prefix: string): string {
  return `${prefix}_${crypto.randomUUID().replaceAll("-", "")}`;
}

async function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  signal.addEventListener("abort", () => resolve(), { once: true });
  await promise;
}
