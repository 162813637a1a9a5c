/** Answers every frame with what is in a file: all of it, or its end read anew each time. */
import { closeSync, openSync, readFileSync, readSync, statSync } from "node:fs";

const [file = "", tail = "0"] = process.argv.slice(2);
const bytes = Number(tail);
const whole = bytes === 0 ? readFileSync(file, "utf8") : "";

function end(): string {
  const fd = openSync(file, "r");
  const buffer = Buffer.allocUnsafe(bytes);
  readSync(fd, buffer, 0, bytes, statSync(file).size - bytes);
  closeSync(fd);
  return buffer.toString();
}

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch: (request, self) => (self.upgrade(request) ? undefined : new Response("ok")),
  websocket: {
    message: (socket) => void socket.send(bytes === 0 ? whole : end()),
  },
});
console.log(JSON.stringify({ url: server.url.href }));
