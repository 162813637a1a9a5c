import fs from "node:fs";
import { basename } from "node:path";
import type { LogState } from "../core/ports.ts";
import { systemCode } from "./storage-fault.ts";

const { O_APPEND, O_CREAT, O_EXCL, O_RDWR } = fs.constants;

/** One file of a log: whole lines, up to `size`. Nothing reads beyond that. */
export class LogFile {
  readonly path: string;
  size: number;
  #fd: number | undefined;
  /** Bytes of a failed append may follow the last whole record. */
  #torn = false;

  constructor(path: string, size: number) {
    this.path = path;
    this.size = size;
  }

  /** Makes a file that must not exist yet, open for appending. */
  static create(path: string): LogFile {
    const file = new LogFile(path, 0);
    file.#fd = fs.openSync(path, O_RDWR | O_APPEND | O_CREAT | O_EXCL, 0o600);
    return file;
  }

  get name(): string {
    return basename(this.path);
  }

  /** Tells this file from a copy of it. */
  identity(): NonNullable<LogState["file"]> {
    const { dev, ino, birthtimeMs, ctimeMs } = fs.statSync(this.path);
    // Where the filesystem knows no birth, the last change stands in for it, which is none.
    const birth_ms = birthtimeMs === ctimeMs ? 0 : birthtimeMs;
    return { name: this.name, dev, ino, birth_ms };
  }

  /** Opens it for appending and cutting. */
  open(): number {
    this.#fd ??= fs.openSync(this.path, O_RDWR | O_APPEND);
    return this.#fd;
  }

  /** Only for when no sync is under way: the number of a closed file may name another one. */
  close(): void {
    if (this.#fd === undefined) return;
    const fd = this.#fd;
    this.#fd = undefined;
    fs.closeSync(fd);
  }

  /** Writes all of the text or, as far as any reader can tell, none. Returns its bytes. */
  append(text: string): number {
    this.mend();
    const length = Buffer.byteLength(text);
    try {
      writeAll(this.open(), text, length);
    } catch (error) {
      this.#torn = true;
      this.#tryToMend();
      throw error;
    }
    this.size += length;
    return length;
  }

  /** Removes what a failed append left behind. */
  mend(): void {
    if (this.#torn) this.cut(this.size);
  }

  /** Drops everything from `size` on. */
  cut(size: number): void {
    fs.ftruncateSync(this.open(), size);
    this.size = size;
    this.#torn = false;
  }

  sync(): Promise<void> {
    const fd = this.open();
    return new Promise((resolve, reject) => {
      fs.fdatasync(fd, (error) => (error ? reject(error) : resolve()));
    });
  }

  /** The bytes from `from` to `to`; fewer where the file ends before. */
  bytes(from: number, to: number): Buffer {
    if (this.#fd !== undefined) return readAt(this.#fd, from, to);
    let fd: number;
    try {
      fd = fs.openSync(this.path, "r");
    } catch (error) {
      if (systemCode(error) !== "ENOENT") throw error;
      // Somebody made room by hand. What is gone is no longer kept, and the rest can be read.
      this.size = 0;
      return Buffer.alloc(0);
    }
    try {
      return readAt(fd, from, to);
    } finally {
      fs.closeSync(fd);
    }
  }

  #tryToMend(): void {
    try {
      this.mend();
    } catch {
      // It stays torn: the next append mends it first, or fails as well.
    }
  }
}

function writeAll(fd: number, text: string, length: number): void {
  // Given a string, Bun makes no copy of it; the copy is for what a short write left over.
  let written = fs.writeSync(fd, text);
  if (written === length) return;
  const bytes = Buffer.from(text);
  while (written < length) written += fs.writeSync(fd, bytes, written, length - written);
}

function readAt(fd: number, from: number, to: number): Buffer {
  const bytes = Buffer.allocUnsafeSlow(Math.max(0, to - from));
  let length = 0;
  while (length < bytes.length) {
    const count = fs.readSync(fd, bytes, length, bytes.length - length, from + length);
    if (count === 0) return bytes.subarray(0, length);
    length += count;
  }
  return bytes;
}
