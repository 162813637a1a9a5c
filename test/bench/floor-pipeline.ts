/** The least that carries the same bytes: split, written, published. */
import { openSync, writeSync } from "node:fs";

const [feeder = "", log = ""] = process.argv.slice(2);
const project = crypto.randomUUID();
const file = openSync(log, "a");
let seq = 0;
const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch: (request, self) => (self.upgrade(request) ? undefined : new Response("ok")),
  websocket: {
    backpressureLimit: 1_073_741_824,
    open: (socket) => void socket.subscribe("project"),
    message: (_, frame) => void run(JSON.parse(String(frame)).data.prompt),
  },
});

async function run(prompt: string): Promise<void> {
  const child = Bun.spawn([feeder], { stdin: "pipe", stdout: "pipe" });
  const message = { content: [{ type: "text", text: prompt }] };
  void child.stdin.write(`${JSON.stringify({ type: "user", message })}\n`);
  void child.stdin.end();
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of child.stdout) {
    const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      seq += 1;
      const about = `"seq":${seq},"timestamp":"${new Date().toISOString()}"`;
      writeSync(file, `{${about},"direction":"claude","message":${line}}\n`);
      const frame = `{"type":"agent_message","project_id":"${project}",${about},"data":${line}}`;
      server.publish("project", frame);
    }
  }
}

console.log(JSON.stringify({ url: server.url.href }));
