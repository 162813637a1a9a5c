import { open, rename } from "node:fs/promises";
import { dirname } from "node:path";
import * as v from "valibot";
import { Fault } from "../contract/errors.ts";
import type { Clock, Telemetry } from "../core/ports.ts";
import { forbidden, readOwned } from "./owned-file.ts";

const jsonText = v.pipe(v.string(), v.parseJson());

/** Replaces a file at once, and resolves when that survives a power cut. */
export async function replaceFile(path: string, text: string): Promise<void> {
  const draft = `${path}.tmp`;
  const file = await open(draft, "w", 0o600);
  try {
    // The draft of a server that was killed may be there, with any mode.
    await file.chmod(0o600);
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(draft, path);
  const directory = await open(dirname(path), "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

interface StateFileOptions<S> {
  readonly path: string;
  readonly schema: S;
  /** All there is to know. It is asked when a write begins. */
  readonly content: () => object;
  readonly clock: Clock;
  readonly log: Telemetry["log"];
}

/** What `saveLater` was called for may be forgotten for so long when the server dies. */
const lazyMs = 60_000;

/** A small file of JSON that always holds all there is to know. */
export class StateFile<S extends v.GenericSchema> implements AsyncDisposable {
  readonly #options: StateFileOptions<S>;
  #turn: Promise<void> = Promise.resolve();
  #waiting: Promise<void> | undefined;
  #later: Disposable | undefined;

  constructor(options: StateFileOptions<S>) {
    this.#options = options;
  }

  /**
   * What was saved; undefined if nothing ever was. Throws a sentence about a file that cannot be
   * used: going on without it would let in again who was shut out.
   */
  load(): v.InferOutput<S> | undefined {
    const { path, schema } = this.#options;
    const content = readOwned(path, forbidden.reading);
    if (!content) return undefined;
    const json = v.safeParse(jsonText, content.toString());
    const parsed = v.safeParse(schema, json.success ? json.output : undefined);
    if (parsed.success) return parsed.output;
    const where = v.getDotPath(parsed.issues[0]);
    const reason = where === null ? "it is not what this server writes" : `"${where}" is damaged`;
    throw new Error(`Cannot use "${path}": ${reason}; restore it, or move it away`);
  }

  /** Resolves once everything is on the disk; rejects with a Fault STORAGE_ERROR. */
  save(): Promise<void> {
    this.#later?.[Symbol.dispose]();
    this.#later = undefined;
    // Many saves in a row are one write of the newest.
    this.#waiting ??= this.#write();
    return this.#waiting;
  }

  /** Saves within a minute what is not worth a write of its own. */
  saveLater(): void {
    const { clock, log } = this.#options;
    this.#later ??= clock.after(lazyMs, () => {
      this.save().catch((cause: unknown) => {
        log("error", "cannot save who may come in", { error: cause });
        this.saveLater();
      });
    });
  }

  /** Saves what is still to be saved. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#later) await this.save();
    await this.#turn;
  }

  #write(): Promise<void> {
    const done = this.#replace();
    this.#turn = done.catch(() => {
      // Whoever asked was told; the next in turn may have more luck.
    });
    return done;
  }

  async #replace(): Promise<void> {
    const { path, content } = this.#options;
    await this.#turn;
    this.#waiting = undefined;
    await replaceFile(path, `${JSON.stringify(content(), null, 2)}\n`).catch(notSaved);
  }
}

function notSaved(cause: unknown): never {
  const reason = cause instanceof Error && "code" in cause ? String(cause.code) : undefined;
  if (reason === undefined) throw cause;
  const message = "Cannot save who may come in: the file cannot be written";
  throw new Fault("STORAGE_ERROR", message, { reason });
}
