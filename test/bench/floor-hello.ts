/** Hello world: what hono and a WebSocket take by themselves. */
import { Hono } from "hono";

const app = new Hono().get("/", (context) => context.text("hello"));
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch: (request, self) => (self.upgrade(request) ? undefined : app.fetch(request)),
  websocket: { message: () => undefined },
});
console.log(JSON.stringify({ url: server.url.href }));
