import { createHash, randomBytes } from "node:crypto";
import { join } from "node:path";
import * as v from "valibot";
import type { Clock, Telemetry } from "../core/ports.ts";
import { StateFile } from "./state-file.ts";

const grant = v.object({
  /** SHA-256 of the token, in base64url. */
  hash: v.string(),
  device: v.string(),
  /** Fingerprint of the key with which the device came; null for a device without one. */
  key: v.nullable(v.string()),
  created_at: v.pipe(v.string(), v.isoTimestamp()),
  used_at: v.pipe(v.string(), v.isoTimestamp()),
});
const schema = v.object({ version: v.literal(1), tokens: v.array(grant) });

/** What a token stands for. */
export type Grant = Readonly<v.InferOutput<typeof grant>>;

const maxPerDevice = 8;
const dayMs = 86_400_000;
const idleMs = 7 * dayMs;
const absoluteMs = 30 * dayMs;
const shape = /^pat_[A-Za-z0-9_-]{43}$/;

/** The tokens that stand for devices. Only their digests are kept, in memory and on the disk. */
export class Tokens implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #file: StateFile<typeof schema>;
  /** By digest, oldest first. */
  readonly #grants: Map<string, Grant>;

  constructor(options: {
    readonly dataDir: string;
    readonly clock: Clock;
    readonly log: Telemetry["log"];
  }) {
    this.#clock = options.clock;
    this.#file = new StateFile({
      ...options,
      path: join(options.dataDir, "tokens.json"),
      schema,
      content: () => ({ version: 1, tokens: [...this.#grants.values()] }),
    });
    const tokens = this.#file.load()?.tokens ?? [];
    this.#grants = new Map(tokens.map((entry) => [entry.hash, entry]));
  }

  /** Makes a token for a device and the key it came with. Of nine live ones the oldest is dropped. */
  async issue(device: string, key: string | null): Promise<{ token: string; expires_at: string }> {
    const issued = this.grant(device, key);
    await this.saved();
    return issued;
  }

  /** As `issue`, but it holds before it is on the disk. */
  grant(device: string, key: string | null): { token: string; expires_at: string } {
    const token = `pat_${randomBytes(32).toString("base64url")}`;
    const now = this.#clock.now().toISOString();
    const issued = { hash: digest(token), device, key, created_at: now, used_at: now };
    for (const entry of this.#grants.values()) if (this.#isOver(entry)) this.#forget(entry);
    this.#grants.set(issued.hash, issued);
    const live = [...this.#grants.values()].filter((entry) => entry.device === device);
    for (const entry of live.slice(0, -maxPerDevice)) this.#forget(entry);
    this.#file.saveLater();
    return { token, expires_at: endOf(issued).toISOString() };
  }

  /** Resolves once everything is on the disk; rejects with a Fault STORAGE_ERROR. */
  async saved(): Promise<void> {
    await this.#file.save();
  }

  /**
   * What a token stands for, and until when; undefined if it is none, or if `holds` says that
   * its device or key may not come in any more. Using it makes it live longer.
   */
  use(
    token: string,
    holds: (grant: Grant) => boolean,
  ): { grant: Grant; expires_at: string } | undefined {
    const known = shape.test(token) ? this.#grants.get(digest(token)) : undefined;
    if (!known || this.#isOver(known) || !holds(known)) return undefined;
    const used = { ...known, used_at: this.#clock.now().toISOString() };
    this.#grants.set(used.hash, used);
    this.#file.saveLater();
    return { grant: used, expires_at: endOf(used).toISOString() };
  }

  /** Ends all tokens of a device. Holds when this returns; the promise tells when it is saved. */
  drop(device: string): Promise<void> {
    for (const entry of this.#grants.values()) if (entry.device === device) this.#forget(entry);
    return this.#file.save();
  }

  /** Saves what is still to be saved. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file[Symbol.asyncDispose]();
  }

  #isOver(entry: Grant): boolean {
    return endOf(entry) <= this.#clock.now();
  }

  #forget({ hash }: Grant): void {
    this.#grants.delete(hash);
  }
}

/** When a token ends if it is not used again. */
function endOf({ created_at, used_at }: Grant): Date {
  return new Date(Math.min(Date.parse(created_at) + absoluteMs, Date.parse(used_at) + idleMs));
}

function digest(token: string): string {
  return createHash("sha256").update(token).digest("base64url");
}
