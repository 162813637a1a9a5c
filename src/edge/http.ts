import { Hono } from "hono";
import type { Health } from "../contract/messages.ts";

export interface HttpDeps {
  readonly health: () => Promise<Health>;
  readonly metrics: () => Promise<{ text: string; contentType: string }>;
  readonly log: (error: unknown) => void;
}

/** The small HTTP surface. To strangers `/health` and `/ready` say nothing but their status. */
export function createHttp({ health, metrics, log }: HttpDeps): Hono {
  const app = new Hono();
  app.use(async (context, next) => {
    await next();
    context.header("x-content-type-options", "nosniff");
    context.header("cache-control", "no-store");
  });
  app.get("/health", (context) => context.json({ status: "ok" }));
  app.get("/ready", async (context) => {
    const { status, problems } = await health();
    const ready = status !== "unhealthy";
    return context.json(ready ? { status } : { status, problems }, ready ? 200 : 503);
  });
  app.get("/metrics", async (context) => {
    const { text, contentType } = await metrics();
    return context.body(text, 200, { "content-type": contentType });
  });
  app.notFound((context) =>
    context.json({ error: { code: "INVALID_MESSAGE", message: "Cannot find that address" } }, 404),
  );
  app.onError((error, context) => {
    log(error);
    const message = "Cannot handle the request: the server failed";
    return context.json({ error: { code: "INTERNAL_ERROR", message } }, 500);
  });
  return app;
}
