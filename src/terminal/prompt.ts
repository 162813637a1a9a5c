import type { ProjectState } from "../contract/messages.ts";
import type { Inquiry } from "./inquiry.ts";
import type { LineEditor } from "./line-editor.ts";
import { type Footer, wrap } from "./screen.ts";
import type { Colour, Paint } from "./style.ts";
import { inline } from "./visible.ts";

interface PromptParts {
  readonly project: ProjectState;
  readonly online: boolean;
  /** How many requests of the agent are open. */
  readonly asked: number;
  /** The one that keys answer now. */
  readonly inquiry: Inquiry | undefined;
  /** What is typed, if anything can be. */
  readonly line: LineEditor | undefined;
  readonly columns: number;
  readonly paint: Paint;
}

/** The rows at the bottom: how the project is, in words and by colour, and what can be typed. */
export function footerOf(parts: PromptParts): Footer {
  const { project, inquiry, line, columns, paint } = parts;
  const [word, colour] = stateOf(parts);
  const name = inline(project.path.split("/").at(-1) ?? "");
  const waiting = project.queued > 0 ? ` | ${project.queued} queued` : "";
  const status = `${word} | ${inline(project.permission_mode)}${waiting} | ${name}`;
  const above = [cut(status, columns), ...(inquiry ? wrap(inquiry.hint, columns) : [])];
  const colours = above.map((row) => paint(colour, row));
  if (!line) return { rows: colours, cursor: endOf(above) };
  const typed = rowsOf(`> ${inline(line.text)}`, columns);
  const before = rowsOf(`> ${inline(line.before)}`, columns);
  const { row, column } = endOf(before);
  const [first = "", ...more] = typed;
  const rows = [...colours, paint(colour, first.slice(0, 1)) + first.slice(1), ...more];
  return { rows, cursor: { row: above.length + row, column } };
}

function stateOf({ project, online, asked }: PromptParts): [string, Colour] {
  if (!online) return ["offline", "grey"];
  if (asked > 0) return [asked > 1 ? `needs you (${asked})` : "needs you", "red"];
  if (project.state === "EXECUTING") return ["executing", "yellow"];
  return [project.state === "ERROR" ? "failed" : "idle", "green"];
}

/** Cut anywhere, so that the rows before the cursor do not change with what is behind it. */
function rowsOf(text: string, columns: number): string[] {
  const rows: string[] = [];
  let row = "";
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    if (Bun.stringWidth(row + segment) > columns) {
      rows.push(row);
      row = "";
    }
    row += segment;
  }
  return [...rows, row];
}

const endOf = (rows: readonly string[]) => ({
  row: rows.length - 1,
  column: Bun.stringWidth(rows.at(-1) ?? ""),
});

function cut(text: string, columns: number): string {
  return rowsOf(text, columns)[0] ?? "";
}
