import fs from "node:fs";
import type { Fault } from "../contract/errors.ts";
import type { Telemetry } from "../core/ports.ts";
import type { LogFile } from "./log-file.ts";
import { storageFault } from "./storage-fault.ts";

/** How long a write may wait for the disk when nobody asks for it. */
const quietMs = 200;

/**
 * Brings a log to the disk, without ever blocking on it. One sync runs at a time and all who asked
 * before it began share it; who asks later waits for the next, because the one under way may have
 * passed over what they wrote.
 */
export class LogSync {
  readonly #directory: string;
  readonly #telemetry: Telemetry;
  #dirty = new Set<LogFile>();
  /** Full files. They are closed here and nowhere else: a sync may still hold their number. */
  #retired = new Set<LogFile>();
  #directoryDirty = false;
  /** The kernel reports a lost page once; after that, syncs of the file succeed for nothing. */
  readonly #failures = new WeakMap<LogFile, unknown>();
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #timer: Timer | undefined;
  /** Why the newest record is not on the disk, until there is a newer one. */
  #fault: Fault | undefined;

  constructor(directory: string, telemetry: Telemetry) {
    this.#directory = directory;
    this.#telemetry = telemetry;
  }

  /** Whether a sync of this file can still be believed. */
  sound(file: LogFile): boolean {
    return !this.#failures.has(file);
  }

  wrote(file: LogFile): void {
    this.#fault = undefined;
    this.#dirty.add(file);
    this.#arm();
  }

  /** Takes over a file that nothing will be written to, to sync and close it. */
  retire(file: LogFile): void {
    this.#retired.add(file);
    this.#arm();
  }

  /** A file was made or deleted. */
  namesChanged(): void {
    this.#directoryDirty = true;
    this.#arm();
  }

  /** Resolves when everything written before the call is on the disk. */
  sync(): Promise<void> {
    if (this.#next) return this.#next;
    const pending = this.#directoryDirty || this.#dirty.size > 0 || this.#retired.size > 0;
    if (pending) return (this.#next = this.#afterRunning());
    if (this.#running) return this.#running;
    return this.#fault ? Promise.reject(this.#fault) : Promise.resolve();
  }

  #arm(): void {
    if (this.#timer) return;
    this.#timer = setTimeout(() => {
      this.sync().catch(() => {
        // Counted and logged where it failed; those who wait for it were told.
      });
    }, quietMs);
    this.#timer.unref();
  }

  async #afterRunning(): Promise<void> {
    await Promise.allSettled([this.#running]);
    // Everyone who asks in this turn of the event loop comes along.
    await new Promise((resolve) => setImmediate(resolve));
    this.#next = undefined;
    this.#running = this.#flush();
    try {
      await this.#running;
    } finally {
      this.#running = undefined;
    }
  }

  async #flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const dirty = [...this.#dirty];
    const retired = [...this.#retired];
    const directory = this.#directoryDirty;
    this.#dirty.clear();
    this.#retired.clear();
    this.#directoryDirty = false;

    const start = performance.now();
    const syncs = dirty.map((file) => this.#syncFile(file));
    if (directory) syncs.push(this.#syncDirectory());
    const outcomes = await Promise.allSettled(syncs);
    this.#telemetry.observe("log_sync_seconds", {}, (performance.now() - start) / 1000);
    for (const file of retired) file.close();
    const failed = outcomes.find((outcome) => outcome.status === "rejected");
    if (failed) this.#fail(failed.reason);
    if (this.#fault) throw this.#fault;
  }

  async #syncFile(file: LogFile): Promise<void> {
    if (this.#failures.has(file)) throw this.#failures.get(file);
    try {
      await file.sync();
    } catch (error) {
      this.#failures.set(file, error);
      throw error;
    }
  }

  async #syncDirectory(): Promise<void> {
    try {
      await syncNames(this.#directory);
    } catch (error) {
      this.#directoryDirty = true;
      throw error;
    }
  }

  #fail(reason: unknown): void {
    this.#fault = storageFault("sync the log", reason);
    this.#telemetry.count("log_errors_total", { operation: "sync" });
    this.#telemetry.log("error", this.#fault.message, { ...this.#fault.details });
  }
}

async function syncNames(directory: string): Promise<void> {
  const fd = fs.openSync(directory, "r");
  try {
    await new Promise<void>((resolve, reject) => {
      fs.fsync(fd, (error) => (error ? reject(error) : resolve()));
    });
  } finally {
    fs.closeSync(fd);
  }
}
