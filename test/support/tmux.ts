import { join } from "node:path";

const patienceMs = 15_000;

/** A program in a terminal of tmux's, typed into and looked at; gone at scope end. */
export class Tmux implements Disposable {
  /** Every byte that the program has written. */
  readonly #raw: string;
  readonly #socket = `pocket-agent-${crypto.randomUUID()}`;

  constructor(
    command: readonly string[],
    at: {
      readonly home: string;
      readonly env: Readonly<Record<string, string | undefined>>;
      readonly columns?: number;
    },
  ) {
    this.#raw = join(at.home, `${this.#socket}.raw`);
    const env = Object.entries({ TERM: "screen-256color", LANG: "C.UTF-8", ...at.env });
    const words = ["env", "-i", ...env.map(([name, value]) => `${name}=${value}`), ...command];
    const quoted = words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
    // It begins when all that it writes is looked at, and what is left can be seen.
    const script = `read go; ${quoted}; echo "left with $?"; stty -a | grep -o -- "-*icanon"; read end`;
    const size = ["-x", String(at.columns ?? 100), "-y", "40"];
    this.#tmux("-f", "/dev/null", "new-session", "-d", ...size, "-c", at.home, script);
    this.#tmux("pipe-pane", `cat > '${this.#raw}'`);
    this.keys("Enter");
  }

  /** Types words as they are. */
  type(text: string): void {
    this.#tmux("send-keys", "-l", text);
  }

  /** Presses keys by tmux's names for them. */
  keys(...names: string[]): void {
    this.#tmux("send-keys", ...names);
  }

  /** Pastes, as a terminal does that tells the program so. */
  paste(text: string): void {
    this.#tmux("set-buffer", text);
    this.#tmux("paste-buffer", "-p");
  }

  /** All that was shown, rows that go on in the next one joined. */
  get text(): string {
    return this.#tmux("capture-pane", "-p", "-J", "-S", "-");
  }

  /** What is shown just now, with its colours: `^[32m` is green. */
  get colours(): string {
    return this.#tmux("capture-pane", "-p", "-e").replaceAll("\u001b", "^");
  }

  /** The rows that are shown just now, as they are. */
  get rows(): string[] {
    return this.#tmux("capture-pane", "-p").trimEnd().split("\n");
  }

  async written(): Promise<string> {
    return await Bun.file(this.#raw).text();
  }

  /** The process that runs in it. */
  async pid(): Promise<number> {
    const shell = this.#tmux("list-panes", "-F", "#{pane_pid}").trim();
    return Number.parseInt(await Bun.file(`/proc/${shell}/task/${shell}/children`).text());
  }

  /** Waits until what was shown matches, and gives it. */
  async until(pattern: RegExp | string, look = () => this.text): Promise<string> {
    const deadline = performance.now() + patienceMs;
    for (;;) {
      const text = look();
      if (typeof pattern === "string" ? text.includes(pattern) : pattern.test(text)) return text;
      if (performance.now() > deadline)
        throw new Error(`${String(pattern)} was never shown, but:\n${text}`);
      await Bun.sleep(20);
    }
  }

  [Symbol.dispose](): void {
    Bun.spawnSync(["tmux", "-L", this.#socket, "kill-server"]);
  }

  #tmux(...words: string[]): string {
    const { stdout, stderr, exitCode } = Bun.spawnSync(["tmux", "-L", this.#socket, ...words]);
    if (exitCode !== 0)
      throw new Error(`tmux ${words[0]} failed (Debian package tmux): ${stderr.toString()}`);
    return stdout.toString();
  }
}
