/** Columns of text, each as wide as its widest cell, under a heading. */
export function table(heading: readonly string[], rows: readonly (readonly string[])[]): string {
  // Names and comments came from elsewhere, and must not steer the terminal.
  const all = [heading, ...rows.map((row) => row.map((cell) => cell.replaceAll(/\p{C}/gu, "?")))];
  const widths = heading.map((_, column) =>
    Math.max(...all.map((row) => Bun.stringWidth(row[column] ?? ""))),
  );
  const line = (row: readonly string[]) =>
    row
      .map((cell, column) => cell + " ".repeat((widths[column] ?? 0) - Bun.stringWidth(cell)))
      .join("  ")
      .trimEnd();
  return all.map(line).join("\n");
}
