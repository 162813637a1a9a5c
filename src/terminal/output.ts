import type { Line } from "./narration.ts";
import { type Paint, paintFor, toned } from "./style.ts";
import type { Piece } from "./transcript.ts";

/** Standard output and error, one below the other where both are the same terminal. */
export class Output {
  readonly #paint: Paint = paintFor(process.stderr);
  /** Whether the terminal's cursor is within a line of words. */
  #within = false;
  #hinted = false;

  constructor() {
    // Whoever read it has gone; the exit code still tells how it ended.
    process.stdout.on("error", () => undefined);
  }

  /** Words of the answer go to standard output, all else to standard error. */
  show(piece: Piece): void {
    if ("words" in piece) this.words(piece.words);
    else this.line(piece);
  }

  words(text: string): void {
    if (text === "") return;
    if (this.#hinted) this.#leaveLine();
    process.stdout.write(text);
    this.#within = !text.endsWith("\n");
  }

  line(line: Line): void {
    this.#leaveLine();
    process.stderr.write(`${toned(this.#paint, line)}\n`);
  }

  /** Shows something on a terminal that is replaced by whatever is shown next. */
  hint(text: string): void {
    this.#leaveLine();
    process.stderr.write(`\r\u001b[K${this.#paint("bold", text)}`);
    this.#hinted = true;
  }

  #leaveLine(): void {
    if (this.#hinted) process.stderr.write("\r\u001b[K");
    this.#hinted = false;
    if (this.#within && process.stdout.isTTY && process.stderr.isTTY) process.stderr.write("\n");
    this.#within = false;
  }
}
