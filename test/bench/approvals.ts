import type { Frame } from "../support/client.ts";
import { type Figure, quantile, value } from "./figure.ts";
import type { Lab } from "./lab.ts";
import { sharedClock } from "./shared-clock.ts";

const asks = 300;

/** How long a question of the agent is on its way to a person, and the answer on its way back. */
export async function approvals(lab: Lab): Promise<Figure[]> {
  await using server = await lab.server();
  const project_id = await server.project();
  const [there, back] = await converse(server.url, project_id);
  return [
    ...figures("permission, the agent's request line → the client's frame", there),
    ...figures("permission, the client's answer → the agent's stdin", back),
  ];
}

function figures(what: string, times: readonly number[]): Figure[] {
  return [0.5, 0.99].map((share) =>
    value(quantile(times, share), { what: `${what}, p${share * 100}`, unit: "ms", budget: null }),
  );
}

/** Milliseconds of every request there and of every answer back. */
function converse(url: string, project_id: string): Promise<[number[], number[]]> {
  const clock = sharedClock();
  const [there, back]: [number[], number[]] = [[], []];
  const { promise, resolve } = Promise.withResolvers<[number[], number[]]>();
  const socket = new WebSocket(new URL("/ws", url.replace("http", "ws")));
  const send = (type: string, data: object) =>
    socket.send(JSON.stringify({ type, project_id, data }));
  let answered = 0;
  socket.addEventListener("message", ({ data }) => {
    const now = clock();
    const frame: Frame = JSON.parse(String(data));
    if (frame.type === "hello")
      send("execute", { prompt: JSON.stringify({ lines: 0, bytes: 0, asks }) });
    if (frame.type === "permission_request") {
      there.push((now - Number(frame.data.input["stamp"])) / 1000);
      answered = clock();
      send("permission_response", {
        permission_id: frame.data.permission_id,
        decision: "allow",
      });
    }
    if (frame.type === "agent_message" && "heard" in frame.data)
      back.push((Number(frame.data["heard"]) - answered) / 1000);
    if (frame.type !== "project_state" || !frame.seq || frame.data.state === "EXECUTING") return;
    socket.close();
    resolve([there, back]);
  });
  return promise;
}
