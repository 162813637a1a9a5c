import { closeSync, ftruncateSync, mkdirSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { makeRecord } from "../../src/adapters/log-record.ts";
import type { ProjectEvent } from "../../src/contract/messages.ts";

const begin = Date.parse("2026-01-01T00:00:00Z");
const said = JSON.stringify({
  type: "assistant",
  message: { content: [{ type: "text", text: "x".repeat(150) }] },
});

/** Writes log files of a project in the format of the server's own. */
export class LogMaker {
  readonly #directory: string;
  #seq = 0;

  constructor(dataDir: string, project: string) {
    this.#directory = join(dataDir, "projects", project, "logs");
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
  }

  /** A full file of so many records; returns its path. */
  full(records: number): string {
    return this.#file((write) => write(this.#lines(records)));
  }

  /** A file with a hole of so many bytes in it, between its first record and its last ones. */
  sparse(holeBytes: number, last: ProjectEvent): string {
    return this.#file((write, fd) => {
      const head = write(this.#lines(1));
      ftruncateSync(fd, head + holeBytes);
      write(`\n${this.#lines(1_000)}${this.#line("server", JSON.stringify(last))}`);
    });
  }

  #file(fill: (write: (text: string) => number, fd: number) => void): string {
    const time = new Date(begin + this.#seq * 1000).toISOString().slice(0, 19);
    const name = `messages_${time.replace("T", "_").replaceAll(":", "-")}.jsonl`;
    const path = join(this.#directory, name);
    const fd = openSync(path, "a", 0o600);
    fill((lines) => writeSync(fd, lines), fd);
    closeSync(fd);
    return path;
  }

  #lines(count: number): string {
    let lines = "";
    for (let made = 0; made < count; made += 1) lines += this.#line("claude", said);
    return lines;
  }

  #line(direction: "claude" | "server", message: string): string {
    this.#seq += 1;
    const timestamp = new Date(begin + this.#seq).toISOString();
    return `${makeRecord(this.#seq, timestamp, { direction, message }).line}\n`;
  }
}
