import type { WriteStream } from "node:tty";

/** Rows at the bottom, and where the cursor is in them. */
export interface Footer {
  readonly rows: readonly string[];
  readonly cursor: { readonly row: number; readonly column: number };
}

/**
 * A terminal of which the last rows are ours: what is written goes above them and stays there,
 * also in the terminal's own history.
 */
export class Screen {
  readonly #output: WriteStream;
  #footer: Footer = { rows: [], cursor: { row: 0, column: 0 } };
  /** Words of a row that may still go on. */
  #tail = "";
  /** How many rows the cursor is below the first of ours. */
  #below = 0;

  constructor(output: WriteStream) {
    this.#output = output;
  }

  /** What fits into a row. The last column is left: terminals differ in what happens there. */
  get columns(): number {
    return Math.max(10, (this.#output.columns || 80) - 1);
  }

  /** Writes words, which go on where the last ones ended. */
  words(text: string): void {
    const lines = `${this.#tail}${text}`.split("\n");
    const rows = lines.flatMap((line) => wrap(line, this.columns));
    this.#tail = rows.pop() ?? "";
    this.#draw(rows);
  }

  /** Writes whole lines. */
  lines(text: string): void {
    const begun = this.#tail === "" ? [] : [this.#tail];
    this.#tail = "";
    this.#draw([...begun, text]);
  }

  set footer(footer: Footer) {
    this.#footer = footer;
    this.#draw([]);
  }

  /** Leaves what was written, without the rows at the bottom. */
  close(): void {
    this.#footer = { rows: [], cursor: { row: 0, column: 0 } };
    const begun = this.#tail === "" ? [] : [this.#tail];
    this.#tail = "";
    this.#draw(begun);
  }

  #draw(above: readonly string[]): void {
    const up = this.#below > 0 ? `\u001b[${this.#below}A` : "";
    const room = Math.max(1, (this.#output.rows || 24) - 2);
    const { rows, cursor } = this.#footer;
    const cut = Math.max(0, rows.length - room);
    const tail = this.#tail === "" ? [] : [this.#tail];
    const ours = [...tail, ...rows.slice(cut)];
    const at = tail.length + Math.max(0, cursor.row - cut);
    const back = ours.length - 1 - at;
    const text = [
      `${up}\r\u001b[J`,
      ...above.map((line) => `${line.replaceAll("\n", "\r\n")}\r\n`),
      ours.join("\r\n"),
      back > 0 ? `\u001b[${back}A` : "",
      "\r",
      cursor.column > 0 ? `\u001b[${cursor.column}C` : "",
    ].join("");
    this.#below = Math.max(0, Math.min(at, ours.length - 1));
    this.#output.write(text);
  }
}

/** Cuts a text into rows, between words where that is possible. */
export function wrap(text: string, columns: number): string[] {
  const rows: string[] = [];
  let row = "";
  let width = 0;
  for (const character of text) {
    const wide = character === "\t" ? 4 : Bun.stringWidth(character);
    // Marks without a width of their own could else make one row of any text.
    if (width + wide > columns || row.length > 8 * columns) {
      const [, kept = "", moved = ""] = /^(.*\s)?(\S*)$/s.exec(row) ?? [];
      const breaks = kept.trim() !== "" && character !== " ";
      rows.push(breaks ? kept.trimEnd() : row);
      row = breaks ? moved : "";
      width = Bun.stringWidth(row);
    }
    row += character === "\t" ? "    " : character;
    width += wide;
  }
  return [...rows, row];
}
