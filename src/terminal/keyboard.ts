import { emitKeypressEvents } from "node:readline";
import type { ReadStream } from "node:tty";

/** A key that somebody pressed. */
export interface Key {
  /** As node:readline calls it: `return`, `tab`, `up`, a letter. */
  readonly name: string;
  readonly ctrl: boolean;
  /** What it writes; empty for keys that write nothing. */
  readonly text: string;
  /** It came from the clipboard. */
  readonly pasted: boolean;
}

const bracketedPaste = { on: "\u001b[?2004h", off: "\u001b[?2004l" };

/** Reads single keys until it is disposed, which gives the terminal back as it was. */
export class Keyboard implements Disposable {
  readonly #input: ReadStream;
  readonly #output: NodeJS.WriteStream;
  readonly #press: (sequence: string | undefined, key: RawKey) => void;
  #pasting = false;

  constructor(
    { input, output }: { input: ReadStream; output: NodeJS.WriteStream },
    pressed: (key: Key) => void,
  ) {
    this.#input = input;
    this.#output = output;
    this.#press = (sequence, key) => {
      if (key.name === "paste-start" || key.name === "paste-end")
        this.#pasting = key.name === "paste-start";
      else pressed(this.#read(sequence, key));
    };
    // Also when nobody gets to dispose it.
    process.once("exit", this.#restore);
    emitKeypressEvents(input);
    input.on("keypress", this.#press);
    input.setRawMode(true);
    input.resume();
    output.write(bracketedPaste.on);
  }

  [Symbol.dispose](): void {
    this.#input.off("keypress", this.#press);
    process.off("exit", this.#restore);
    this.#restore();
    this.#input.pause();
  }

  readonly #restore = (): void => {
    this.#input.setRawMode(false);
    this.#output.write(bracketedPaste.off);
  };

  #read(sequence: string | undefined, { name = "", ctrl = false, meta = false }: RawKey): Key {
    const plain = sequence !== undefined && !ctrl && !meta && !/\p{Cc}/u.test(sequence);
    return { name, ctrl, text: plain ? sequence : "", pasted: this.#pasting };
  }
}

interface RawKey {
  readonly name?: string;
  readonly ctrl?: boolean;
  readonly meta?: boolean;
}
