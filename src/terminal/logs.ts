import { Link } from "./link.ts";
import { find } from "./projects.ts";
import { frameOf, type Record, recordOf } from "./records.ts";
import { type Paint, paintFor, toned } from "./style.ts";
import { Transcript } from "./transcript.ts";
import { inline, json } from "./visible.ts";
import type { Door } from "./wire.ts";

export interface LogsOptions {
  /** Id, name or path of a project, and what else the path may be. */
  readonly project: string;
  readonly paths: readonly string[];
  /** Goes on with what happens from now on. */
  readonly follow: boolean;
  /** Prints one record a line. */
  readonly json: boolean;
}

/** Prints a project's history, and perhaps what is added to it; gives the exit code. */
export async function logs(door: Door, options: LogsOptions): Promise<number> {
  const { promise: ended, resolve, reject } = Promise.withResolvers<number>();
  // Whoever read it has read enough.
  process.stdout.on("error", () => resolve(0));
  const printer = new Printer(options.json);
  using link = new Link(door, {
    event(frame) {
      const record = recordOf(frame);
      if (record) void printer.print(record);
      else if (frame.type === "project_deleted") reject(new Error("The project was deleted"));
    },
    joined: () => undefined,
    offline: (reason) => say(`Connection lost (${inline(reason)}); trying again`),
    online: () => say("Connected again"),
    over: reject,
  });
  const read = async () => {
    await link.open();
    const { id, epoch } = await find(link, options.project, options.paths);
    const seq = await history(link, id, printer);
    if (!options.follow) return 0;
    await link.follow(id, { seq, epoch });
    return await ended;
  };
  return await Promise.race([ended, read()]);
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** Prints all that there is, page by page; gives the number of the last record. */
async function history(link: Link, project_id: string, printer: Printer): Promise<number> {
  for (let after_seq = 0; ;) {
    // oxlint-disable-next-line no-await-in-loop -- one page follows the other
    const answer = await link.insist("get_messages", { project_id, after_seq });
    if (answer.type !== "messages_response") return after_seq;
    const { messages, has_more } = answer.data;
    // oxlint-disable-next-line no-await-in-loop -- no faster than it is read
    for (const record of messages) await printer.print(record);
    after_seq = messages.at(-1)?.seq ?? after_seq;
    if (!has_more || messages.length === 0) return after_seq;
  }
}

class Printer {
  readonly #json: boolean;
  readonly #paint: Paint = paintFor(process.stdout);
  readonly #transcript = new Transcript();

  constructor(asJson: boolean) {
    this.#json = asJson;
  }

  /** Resolves once there is room for more. */
  async print(record: Record): Promise<void> {
    const text = this.#json ? `${json(record)}\n` : this.#text(record);
    if (text === "" || process.stdout.write(text)) return;
    await new Promise<void>((resolve) => void process.stdout.once("drain", resolve));
  }

  #text(record: Record): string {
    const time = inline(record.timestamp.slice(0, 19).replace("T", " "));
    return this.#transcript
      .take(frameOf(record))
      .map((piece) => ("words" in piece ? piece.words.trimEnd() : toned(this.#paint, piece)))
      .filter((text) => text !== "")
      .map((text) => `${this.#paint("grey", time)}  ${text.replaceAll("\n", "\n  ")}\n`)
      .join("");
  }
}
