import { isFields } from "./record.ts";

/** The lines of stdin, cut at line feeds only. */
export async function* stdinLines(): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let carry: string[] = [];
  for await (const chunk of Bun.stdin.stream()) {
    const text = decoder.decode(chunk, { stream: true });
    const lines = text.split("\n");
    const rest = lines.pop() ?? "";
    for (const line of lines) {
      yield [...carry, line].join("");
      carry = [];
    }
    carry.push(rest);
  }
  const last = carry.join("");
  if (last) yield last;
}

/** The text of a user message, whose content may be a string or blocks. */
export function textOf(content: unknown): string {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  return content
    .flatMap((block) => (isFields(block) && block["type"] === "text" ? [block["text"]] : []))
    .join("\n");
}
