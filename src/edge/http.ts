import { type Context, Hono, type MiddlewareHandler } from "hono";
import { type ErrorCode, errors, Fault } from "../contract/errors.ts";
import type { Health, Scope } from "../contract/messages.ts";
import { consoleFile } from "./console.ts";
import type { Projects } from "../core/projects.ts";
import { messages, pageOf } from "./page.ts";

/** A connected client. */
export interface SessionInfo {
  readonly connection: string;
  readonly device: { readonly id: string; readonly name: string; readonly scope: Scope } | null;
  readonly address: string;
  readonly connected_at: string;
  /** Ids of the projects it has joined. */
  readonly projects: readonly string[];
}

export interface HttpDeps {
  readonly health: () => Promise<Health>;
  readonly metrics: () => Promise<{ text: string; contentType: string }>;
  readonly projects: Projects;
  readonly sessions: () => readonly SessionInfo[];
  /** What a token may do, used from an address. Throws UNAUTHORIZED or RATE_LIMITED. */
  readonly authorize: (token: string | undefined, address: string) => Scope;
  readonly log: (error: unknown, correlationId: string) => void;
}

/** What the server knows of a request that is not in it. */
export interface HttpEnv {
  Bindings: { readonly address: string };
}

const methods = ["GET", "HEAD"];

/** The small HTTP surface, read only. To strangers `/health` and `/ready` say only their status. */
export function createHttp(deps: HttpDeps): Hono<HttpEnv> {
  const { health, projects } = deps;
  const [read, full] = [gate(deps, "read"), gate(deps, "full")];
  const app = new Hono<HttpEnv>();
  app.use(async (context, next) => {
    await next();
    context.header("x-content-type-options", "nosniff");
    if (!context.res.headers.has("cache-control")) context.header("cache-control", "no-store");
  });
  app.use(async (context, next) => {
    if (methods.includes(context.req.method)) return await next();
    context.header("allow", methods.join(", "));
    return context.json(body(new Fault("INVALID_MESSAGE", "Cannot do that: GET only")), 405);
  });

  app.get("/health", (context) => context.json({ status: "ok" }));
  app.get("/ready", async (context) => {
    const { status, problems } = await health();
    if (status !== "unhealthy") return context.json({ status });
    return context.json({ status, ...(may(context, deps) && { problems }) }, 503);
  });
  app.get("/metrics", full, async (context) => {
    const { text, contentType } = await deps.metrics();
    return context.body(text, 200, { "content-type": contentType });
  });
  app.get("/api/v1/health", read, async (context) => context.json(await health()));
  app.get("/api/v1/sessions", full, (context) => context.json({ sessions: deps.sessions() }));
  app.get("/api/v1/projects", read, (context) => json(context, `{"projects":${projects.list()}}`));
  app.get("/api/v1/projects/:id", read, (context) =>
    json(context, projects.get(context.req.param("id")).json),
  );
  app.get("/api/v1/projects/:id/messages", read, (context) => {
    const { log } = projects.get(context.req.param("id")).feed;
    return json(context, messages(log.page(pageOf(context.req.queries()))));
  });
  app.notFound(
    async (context) =>
      (await consoleFile(context.req.path, context.req.header("accept-encoding") ?? "")) ??
      context.json(body(new Fault("INVALID_MESSAGE", "Cannot find that address")), 404),
  );
  app.onError((error, context) => {
    if (error instanceof Fault) return refused(context, error);
    const correlation_id = crypto.randomUUID();
    deps.log(error, correlation_id);
    const message = "Cannot handle the request: the server failed";
    return refused(context, new Fault("INTERNAL_ERROR", message, { correlation_id }));
  });
  return app;
}

/** Lets through whose token may see this. */
function gate({ authorize }: HttpDeps, needed: "read" | "full"): MiddlewareHandler<HttpEnv> {
  return async (context, next) => {
    const scope = authorize(bearer(context), context.env.address);
    // Every scope may read.
    if (needed === "full" && scope !== "full")
      throw new Fault(
        "FORBIDDEN",
        `Cannot show that: this device has the scope ${scope}, and it needs ${needed}`,
      );
    await next();
  };
}

function may(context: Context<HttpEnv>, { authorize }: HttpDeps): boolean {
  const token = bearer(context);
  try {
    authorize(token, context.env.address);
    return true;
  } catch (error) {
    if (error instanceof Fault) return false;
    throw error;
  }
}

/** From the header alone: what is in an address ends up in logs, and cookies come unasked. */
function bearer(context: Context): string | undefined {
  return /^Bearer +(\S+)$/i.exec(context.req.header("authorization") ?? "")?.[1];
}

function json(context: Context, text: string): Response {
  return context.body(text, 200, { "content-type": "application/json" });
}

function body(fault: Fault): { error: Fault["data"] } {
  return { error: fault.data };
}

function refused(context: Context, fault: Fault): Response {
  const wait = fault.details?.["retry_after_ms"];
  if (fault.code === "UNAUTHORIZED") context.header("www-authenticate", "Bearer");
  if (typeof wait === "number") context.header("retry-after", String(Math.ceil(wait / 1000)));
  return context.json(body(fault), statusOf(fault.code));
}

function statusOf(code: ErrorCode) {
  return errors[code].http;
}
