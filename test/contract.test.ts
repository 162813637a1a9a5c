import { expect, test } from "bun:test";
import { join } from "node:path";
import * as v from "valibot";
import { closeCodes, errors, Fault } from "../src/contract/errors.ts";
import { type ClientRow, clientMessages, serverMessages } from "../src/contract/messages.ts";
import { metrics } from "../src/contract/metrics.ts";
import { notificationEvents } from "../src/contract/notifications.ts";
import { flagOf, options } from "../src/contract/options.ts";

const readme = Bun.file(join(import.meta.dir, "../README.md"));

type Row = readonly (string | number)[];

/** What the README says of each table of the contract. `UPDATE=1` writes it there. */
const tables: Readonly<Record<string, readonly Row[]>> = {
  requests: [
    ["request", "data", "reply", "scope", "what it does"],
    ...Object.entries<ClientRow>(clientMessages).map(([type, row]) => [
      code(type),
      [...(row.project ? [code("project_id")] : []), ...fieldsOf(row.data)].join(", "),
      code(row.reply),
      [
        row.scope === "none" ? "–" : row.scope,
        ...Object.entries(row.fields ?? {}).map(([field, scope]) => `${scope} for ${code(field)}`),
      ].join(", "),
      row.about,
    ]),
  ],
  "server-messages": [
    ["message", "kind", "data", "what it says"],
    ...Object.entries(serverMessages).map(([type, { kind, data, about }]) => [
      code(type),
      kind,
      fieldsOf(data).join(", "),
      about,
    ]),
  ],
  notifications: [
    ["event", "title", "when"],
    ...Object.entries(notificationEvents).map(([event, { title, about }]) => [
      code(event),
      `NAME ${title}`,
      about,
    ]),
  ],
  errors: [
    ["code", "HTTP", "meaning"],
    ...Object.entries(errors).map(([name, { http, about }]) => [code(name), http, about]),
  ],
  "close-codes": [
    ["code", "reason", "may reconnect"],
    ...Object.entries(closeCodes).map(([name, { reason, reconnect }]) => [name, reason, reconnect]),
  ],
  settings: [
    ["file", "environment", "flag", "default", "what it is"],
    ...Object.entries(options).map(([name, { file, env, default: value, about }]) => [
      code(file),
      code(env),
      code(`--${flagOf(name)}`),
      value === null ? "–" : code(String(value)),
      about,
    ]),
  ],
  metrics: [
    ["metric", "kind", "labels", "what it is"],
    ...Object.entries(metrics).map(([name, { kind, labels, about }]) => [
      code(`pocket_agent_${name}`),
      kind,
      labels.map(code).join(", "),
      about,
    ]),
  ],
};

test.each(Object.keys(tables))(
  "the README has the table %s as the contract has it",
  async (name) => {
    const text = await readme.text();
    const marked = new RegExp(`(<!-- table:${name} -->\n).*?(<!-- /table -->)`, "s");
    expect(text).toMatch(marked);
    const upToDate = text.replace(
      marked,
      (_, open, close) => `${open}\n${render(name)}\n\n${close}`,
    );
    if (process.env["UPDATE"] === "1") await readme.write(upToDate);
    else expect(text).toBe(upToDate);
  },
);

test("the README has no table that the contract has not", async () => {
  const text = await readme.text();
  const marked = [...text.matchAll(/<!-- table:(\S+) -->/g)].map(([, name]) => name);
  expect(marked).toHaveLength(Object.keys(tables).length);
  expect(new Set(marked)).toEqual(new Set(Object.keys(tables)));
});

test("every request is answered with a message that the server may send", () => {
  const replies = Object.values(clientMessages).map(({ reply }) => reply);
  expect(replies.filter((reply) => !(reply in serverMessages))).toEqual([]);
});

test("no message has a name that existing clients use internally", () => {
  const taken = ["connected", "disconnected", "reconnecting", "reconnectFailed", "message"];
  for (const name of [...taken, "project_created"]) {
    expect(clientMessages).not.toHaveProperty(name);
    expect(serverMessages).not.toHaveProperty(name);
  }
});

test("every request refuses a field that it does not have", () => {
  const valid = Object.entries(clientMessages).filter(([, { data }]) => {
    const { issues = [] } = v.safeParse(data, { "no such field": 1 });
    return !issues.some((issue) => v.getDotPath(issue) === "no such field");
  });
  expect(valid.map(([type]) => type)).toEqual([]);
});

test("every error has an HTTP status of its kind and is told as it was thrown", () => {
  for (const [name, { http, about }] of Object.entries(errors)) {
    expect(http).toBeWithin(400, 600);
    expect(about).not.toEndWith(".");
    expect(v.safeParse(serverMessages.error.data, { code: name, message: about }).success).toBe(
      true,
    );
  }
  expect(new Fault("PROCESS_ACTIVE").data).toEqual({
    code: "PROCESS_ACTIVE",
    message: errors.PROCESS_ACTIVE.about,
  });
  expect(new Fault("RATE_LIMITED", "Cannot", { retry_after_ms: 5 }).data).toEqual({
    code: "RATE_LIMITED",
    message: "Cannot",
    details: { retry_after_ms: 5 },
  });
});

test("no two settings share a name, and no flag is taken by the program itself", () => {
  const rows = Object.entries(options);
  for (const names of [
    rows.map(([, { file }]) => file),
    rows.map(([, { env }]) => env),
    [...rows.map(([name]) => flagOf(name)), "config", "help", "version"],
  ])
    expect(new Set(names).size).toBe(names.length);
  // A key that is also a section could not be written in the file.
  const files = rows.map(([, { file }]) => file);
  expect(files.filter((file) => files.some((other) => other.startsWith(`${file}.`)))).toEqual([]);
  for (const [, { env }] of rows) expect(env).toMatch(/^PA_[A-Z_]+$/);
});

test("every default is a value that its setting takes", () => {
  const wrong = Object.entries(options).filter(
    ([, { type, default: value }]) => !v.safeParse(type, value).success,
  );
  expect(wrong.map(([name]) => name)).toEqual([]);
});

test("metrics are named as Prometheus wants it", () => {
  for (const [name, row] of Object.entries(metrics)) {
    expect(name).toMatch(/^[a-z]+(_[a-z]+)*$/);
    if (row.kind === "counter") expect(name).toEndWith("_total");
    for (const label of row.labels) expect(label).toMatch(/^[a-z]+(_[a-z]+)*$/);
    if ("values" in row) expect(row.labels).toHaveLength(1);
  }
});

/** The keys of a message's data, those that may be missing with a question mark. */
function fieldsOf(schema: object): string[] {
  if ("wrapped" in schema && schema.wrapped instanceof Object) return fieldsOf(schema.wrapped);
  if (!("entries" in schema) || !(schema.entries instanceof Object)) return [];
  const fields: [string, { type: string }][] = Object.entries(schema.entries);
  return fields.map(([name, { type }]) => {
    const mayBeMissing = type === "optional" || type === "nullish";
    return code(mayBeMissing ? `${name}?` : name);
  });
}

function render(name: string): string {
  const [head = [], ...rows] = tables[name] ?? [];
  return [lineOf(head), `|${" --- |".repeat(head.length)}`, ...rows.map(lineOf)].join("\n");
}

function lineOf(cells: Row): string {
  return `| ${cells.map((cell) => String(cell).replaceAll("|", "\\|")).join(" | ")} |`;
}

function code(text: string): string {
  return `\`${text}\``;
}
