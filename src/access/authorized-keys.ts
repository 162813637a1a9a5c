import { statSync } from "node:fs";
import type { Clock, Telemetry } from "../core/ports.ts";
import { allows, type AuthorizedKey, parseAuthorizedKeys, type Visit } from "./authorized-key.ts";
import { readOwned } from "./owned-file.ts";

/** A file of keys. One that must exist is reported when it does not. */
export interface KeyFile {
  readonly path: string;
  readonly required: boolean;
}

interface LoadedFile extends KeyFile {
  /** Undefined before the first look. */
  version: string | undefined;
  keys: readonly AuthorizedKey[];
}

/** The files are looked at again no sooner than this. */
const refreshMs = 1_000;
const absent = "absent";

/** The keys that may log in, as the files say now: a change takes effect within a second. */
export class AuthorizedKeys {
  readonly #clock: Clock;
  readonly #log: Telemetry["log"];
  readonly #files: readonly LoadedFile[];
  readonly #added: (key: AuthorizedKey, path: string) => void;
  #byFingerprint = new Map<string, AuthorizedKey[]>();
  #checkedAt = Number.NEGATIVE_INFINITY;

  constructor(options: {
    readonly files: readonly KeyFile[];
    readonly clock: Clock;
    readonly log: Telemetry["log"];
    /** Called for each key that was not there before; not for those at the start. */
    readonly added?: (key: AuthorizedKey, path: string) => void;
  }) {
    this.#clock = options.clock;
    this.#log = options.log;
    this.#added = options.added ?? (() => undefined);
    this.#files = options.files.map((file) => ({ ...file, version: undefined, keys: [] }));
    this.refresh();
  }

  /**
   * The line that lets this key in, if one does. Several lines may hold the same key. Whoever
   * asks has hashed what a stranger offered, and parsed nothing of it.
   */
  find(keyFingerprint: string, visit: Visit): AuthorizedKey | undefined {
    this.refresh();
    return this.#byFingerprint.get(keyFingerprint)?.find((key) => allows(key, visit));
  }

  /** All keys, each once, whatever their conditions. */
  all(): readonly AuthorizedKey[] {
    this.refresh();
    return [...this.#byFingerprint.values()].flatMap(([key]) => (key ? [key] : []));
  }

  /** Every line that holds a key, with the file that it is in. */
  lines(): readonly { readonly path: string; readonly key: AuthorizedKey }[] {
    this.refresh();
    return this.#files.flatMap(({ path, keys }) => keys.map((key) => ({ path, key })));
  }

  /** Looks at the files again if the last look was a while ago, or at once. */
  refresh({ atOnce = false }: { atOnce?: boolean } = {}): void {
    const now = this.#clock.monotonic();
    if (!atOnce && now - this.#checkedAt < refreshMs) return;
    const first = this.#checkedAt === Number.NEGATIVE_INFINITY;
    this.#checkedAt = now;
    const changed = this.#files.filter((file) => file.version !== currentVersion(file.path));
    if (changed.length === 0) return;
    for (const file of changed) this.#load(file);
    const before = this.#byFingerprint;
    this.#byFingerprint = Map.groupBy(
      this.#files.flatMap(({ keys }) => keys),
      (key) => key.fingerprint,
    );
    if (first) return;
    for (const { path, keys } of changed)
      for (const key of keys) if (!before.has(key.fingerprint)) this.#added(key, path);
  }

  /** Of a file that cannot be used nothing counts, not even what it said before. */
  #load(file: LoadedFile): void {
    const { path } = file;
    file.keys = [];
    // Before it is read: what changes in between is seen the next time.
    file.version = currentVersion(path);
    try {
      const content = readOwned(path);
      if (!content) {
        if (file.required) this.#log("warn", "a file of authorized keys is missing", { path });
        return;
      }
      const { keys, refused } = parseAuthorizedKeys(content.toString());
      file.keys = keys;
      for (const { line, reason } of refused)
        this.#log("warn", "a line of authorized keys is refused", { path, line, reason });
      this.#log("info", "authorized keys loaded", { path, keys: keys.length });
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      this.#log("error", "a file of authorized keys is refused", { path, reason });
    }
  }
}

/** What differs when a file is another or was changed. */
function currentVersion(path: string): string {
  try {
    const { dev, ino, size, mode, uid, mtimeNs, ctimeNs } = statSync(path, { bigint: true });
    return [dev, ino, size, mode, uid, mtimeNs, ctimeNs].join(":");
  } catch {
    // Why it cannot be looked at is found out, and said, by reading it.
    return absent;
  }
}
