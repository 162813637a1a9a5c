import type { Key } from "./keyboard.ts";

/** A line that somebody types. A position is between two characters as people count them. */
export class LineEditor {
  readonly #characters: string[] = [];
  #at = 0;

  get text(): string {
    return this.#characters.join("");
  }

  /** What is before the cursor. */
  get before(): string {
    return this.#characters.slice(0, this.#at).join("");
  }

  set(text: string): void {
    this.#characters.splice(0, this.#characters.length, ...characters(text));
    this.#at = this.#characters.length;
  }

  press({ name, ctrl, text, pasted }: Key): void {
    // Ctrl-J is a line feed.
    if (name === "enter" || (pasted && name === "return")) return this.#insert("\n");
    if (name === "backspace") return this.#delete(this.#at - 1);
    if (name === "delete") return this.#delete(this.#at);
    if (name === "left") this.#at = Math.max(0, this.#at - 1);
    else if (name === "right") this.#at = Math.min(this.#characters.length, this.#at + 1);
    else if (name === "home" || (ctrl && name === "a")) this.#at = 0;
    else if (name === "end" || (ctrl && name === "e")) this.#at = this.#characters.length;
    else if (ctrl && name === "u") this.#characters.splice(0, this.#at, ...this.#move(0));
    else if (ctrl && name === "w") this.#deleteWord();
    else if (text !== "") this.#insert(text);
  }

  #insert(text: string): void {
    const added = characters(text);
    this.#characters.splice(this.#at, 0, ...added);
    this.#at += added.length;
  }

  #delete(at: number): void {
    if (at < 0) return;
    this.#characters.splice(at, 1);
    this.#at = at;
  }

  #deleteWord(): void {
    const kept = this.before.replace(/\S*\s*$/, "");
    const from = characters(kept).length;
    this.#characters.splice(from, this.#at - from);
    this.#at = from;
  }

  #move(at: number): [] {
    this.#at = at;
    return [];
  }
}

const segmenter = new Intl.Segmenter();

function characters(text: string): string[] {
  return Array.from(segmenter.segment(text), ({ segment }) => segment);
}
