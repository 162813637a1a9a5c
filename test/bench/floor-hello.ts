/** Hello world: what hono and a WebSocket take by themselves; with the files of a certificate, TLS. */
import { Hono } from "hono";

const [cert, key] = process.argv.slice(2);
const app = new Hono().get("/", (context) => context.text("hello"));
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  ...(cert && key && { tls: { cert: Bun.file(cert), key: Bun.file(key) } }),
  fetch: (request, self) => (self.upgrade(request) ? undefined : app.fetch(request)),
  websocket: { message: () => undefined },
});
console.log(JSON.stringify({ url: server.url.href }));
