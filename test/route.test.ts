import { expect, mock, test } from "bun:test";
import type { ServerWebSocket } from "bun";
import { systemClock as clock } from "../src/adapters/clock.ts";
import { loadConfig } from "../src/config.ts";
import { type ClientType, clientMessages, type Scope } from "../src/contract/messages.ts";
import type { Telemetry } from "../src/core/ports.ts";
import { Connection } from "../src/edge/connection.ts";
import { route, type RouteContext } from "../src/edge/route.ts";

const nothing = () => undefined;
const telemetry: Telemetry = { count: nothing, gauge: nothing, observe: nothing, log: nothing };
const rank: Readonly<Record<Scope | "none", number>> = { none: 0, read: 1, approve: 2, full: 3 };
const scopes = ["read", "approve", "full"] as const;
const types = Object.keys(clientMessages).filter(
  (type): type is ClientType => type in clientMessages,
);

class ScopedConnection extends Connection {
  readonly #scope: Scope | "none";

  constructor(scope: Scope | "none", socket: ServerWebSocket<unknown>) {
    const config = loadConfig([], {});
    super(socket, {
      config,
      clock,
      telemetry,
      sent: nothing,
      address: "::1",
      login: undefined,
      known: null,
    });
    this.#scope = scope;
  }

  override get scope(): Scope | "none" {
    return this.#scope;
  }
}

/** Routes one frame for a connection of some scope, and gives the one error that comes back. */
async function refusal(scope: Scope | "none", message: object) {
  const send = mock((_text: string) => 1);
  const socket: Pick<ServerWebSocket, "remoteAddress" | "send"> = { remoteAddress: "", send };
  // A connection that is refused everything touches nothing else of its socket or its surroundings.
  const connection = new ScopedConnection(scope, socket as never);
  const context = { connection, clock, telemetry, audit: nothing };
  await route(JSON.stringify(message), context as unknown as RouteContext);
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

test.each(types)("%s is UNAUTHORIZED to who has not logged in, whatever its data", async (type) => {
  const messages = [
    { type },
    { type, data: "text" },
    { type, project_id: 1 },
    { type, project_id: "p", data: { nonsense: 1 } },
  ];
  const codes = await Promise.all(messages.map(async (it) => (await refusal("none", it)).code));
  const anybody = clientMessages[type].scope === "none";
  expect(new Set(codes)).toEqual(new Set([anybody ? "INVALID_MESSAGE" : "UNAUTHORIZED"]));
});

test.each(
  Object.entries(clientMessages).flatMap(([type, row]) =>
    "fields" in row
      ? Object.entries(row.fields).map(([field, scope]) => ({ type, field, scope }))
      : [],
  ),
)("$type with $field is FORBIDDEN below the scope $scope", async ({ type, field, scope }) => {
  const message = { type, project_id: "p", data: { [field]: "something", nonsense: 1 } };
  for (const lower of scopes.filter((other) => rank[other] < rank[scope]))
    // oxlint-disable-next-line no-await-in-loop -- one after the other reads better
    expect((await refusal(lower, message)).code).toBe("FORBIDDEN");
  expect((await refusal(scope, message)).code).toBe("INVALID_MESSAGE");
});
