import { expect, mock, test } from "bun:test";
import type { ServerWebSocket } from "bun";
import { systemClock as clock } from "../src/adapters/clock.ts";
import { loadConfig } from "../src/config.ts";
import { type ClientType, clientMessages, type Scope } from "../src/contract/messages.ts";
import type { Telemetry } from "../src/core/ports.ts";
import { Connection } from "../src/edge/connection.ts";
import { route, type RouteContext } from "../src/edge/route.ts";

const telemetry: Telemetry = {
  count: () => undefined,
  gauge: () => undefined,
  observe: () => undefined,
  log: () => undefined,
};
const rank: Readonly<Record<Scope, number>> = { read: 0, approve: 1, full: 2 };
const scopes = ["read", "approve", "full"] as const;
const types = Object.keys(clientMessages).filter(
  (type): type is ClientType => type in clientMessages,
);

class ScopedConnection extends Connection {
  override readonly scope: Scope;

  constructor(scope: Scope, socket: ServerWebSocket<unknown>) {
    const config = loadConfig([], {});
    super(socket, { config, clock, telemetry, sent: () => undefined });
    this.scope = scope;
  }
}

/** Routes one frame for a connection of some scope, and gives the one error that comes back. */
async function refusal(scope: Scope, message: object) {
  const send = mock((_text: string) => 1);
  const socket: Pick<ServerWebSocket, "remoteAddress" | "send"> = { remoteAddress: "", send };
  // A connection that is refused everything touches nothing else of its socket or its surroundings.
  const context = { connection: new ScopedConnection(scope, socket as never), clock, telemetry };
  await route(JSON.stringify(message), context as RouteContext);
  expect(send).toHaveBeenCalledTimes(1);
  const { type, data } = JSON.parse(String(send.mock.calls[0]?.[0]));
  expect(type).toBe("error");
  return data;
}

test("the envelope is checked before the authority", async () => {
  const { code, details } = await refusal("read", { type: "execute", data: { prompt: 1 } });
  expect({ code, details }).toEqual({ code: "INVALID_MESSAGE", details: { path: "project_id" } });
});

test("the authority is checked before the data, whose fields it does not tell about", async () => {
  const wrong = { type: "execute", project_id: "p", data: { prompt: 1, nonsense: 2 } };
  const { code, message, details } = await refusal("read", wrong);
  expect(code).toBe("FORBIDDEN");
  expect(details).toBeUndefined();
  expect(message).not.toMatch(/prompt|nonsense/);
  expect(await refusal("full", wrong)).toMatchObject({ code: "INVALID_MESSAGE" });
});

test.each(types)(
  "%s is FORBIDDEN to every scope below its row's, whatever its data",
  async (type) => {
    const message = { type, project_id: "p", data: { nonsense: 1 } };
    const codes = await Promise.all(
      scopes.map(async (scope) => (await refusal(scope, message)).code),
    );
    const needed = rank[clientMessages[type].scope];
    expect(codes).toEqual(
      scopes.map((scope) => (rank[scope] < needed ? "FORBIDDEN" : "INVALID_MESSAGE")),
    );
  },
);
