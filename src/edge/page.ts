import * as v from "valibot";
import { Fault } from "../contract/errors.ts";
import { clientMessages } from "../contract/messages.ts";
import type { LogQuery } from "../core/ports.ts";

/** A page of history as JSON: the records' own text, of which nothing is parsed. */
export function messages(page: {
  readonly records: readonly { readonly line: string }[];
  readonly hasMore: boolean;
}): string {
  const lines = page.records.map(({ line }) => line).join(",");
  return `{"messages":[${lines}],"has_more":${page.hasMore}}`;
}

/** Which page an address asks for, by the rules of `get_messages`; its numbers arrive as text. */
export function pageOf(queries: Readonly<Record<string, readonly string[]>>): LogQuery {
  const typed = Object.entries(queries).map(([name, texts]) => {
    const [text = "", ...more] = texts;
    // Of two values nobody knows which one was meant; the rules know no lists.
    if (more.length > 0) return [name, texts];
    return [name, /^\d{1,16}$/.test(text) ? Number(text) : text];
  });
  const result = v.safeParse(clientMessages.get_messages.data, Object.fromEntries(typed));
  if (result.success) return result.output ?? { limit: 1000 };
  const [issue] = result.issues;
  const path = v.getDotPath(issue) ?? "query";
  throw new Fault("INVALID_MESSAGE", `Cannot read ${path}: ${issue.message}`, { path });
}
