/**
 * Signs executables for macOS ad hoc, on any host. Bun's compiler appends to its own signed
 * runtime; for x64 it leaves that signature in place, which then no longer fits some pages.
 * Numbers in load commands are little-endian, those in signatures big-endian.
 */
import { createHash } from "node:crypto";

const magic64 = 0xfeedfacf;
const commands = { segment64: 0x19, codeSignature: 0x1d };
const superBlobMagic = 0xfade0cc0;
const codeDirectoryMagic = 0xfade0c02;
const superBlobLength = 20;
const headerLength = 88;
const hashLength = 32;
const pageBits = 12;
const pageLength = 1 << pageBits;

interface Layout {
  /** Where the signature is, which is also where the signed code ends. */
  readonly start: number;
  readonly length: number;
  readonly text: { readonly offset: bigint; readonly length: bigint };
}

/** Replaces the signature of a thin 64-bit Mach-O file by an ad hoc one, in place. */
export function signAdHoc(file: Buffer, identifier: string): void {
  const { start, length, text } = layoutOf(file);
  const directory = codeDirectory(file.subarray(0, start), identifier, text);
  const total = superBlobLength + directory.length;
  // The load commands stay as they are, so the new signature takes the place of the old one.
  if (total > length) throw new Error(`Cannot sign: ${total} bytes do not fit into ${length}`);
  const superBlob = Buffer.alloc(superBlobLength);
  const fields = [superBlobMagic, total, 1, 0, superBlobLength];
  for (const [index, field] of fields.entries()) superBlob.writeUInt32BE(field, index * 4);
  file.fill(0, start);
  superBlob.copy(file, start);
  directory.copy(file, start + superBlobLength);
}

/** Counts the pages of a signed file, and those that are not what the signature says. */
export function checkPages(file: Buffer): { pages: number; invalid: number } {
  const { start } = layoutOf(file);
  const directory = file.subarray(codeDirectoryOffset(file, start));
  const hashes = directory.readUInt32BE(16);
  const pages = directory.readUInt32BE(28);
  const code = file.subarray(0, directory.readUInt32BE(32));
  if (1 << directory.readUInt8(39) !== pageLength || directory.readUInt8(37) !== 2) {
    throw new Error("Cannot check the signature: it does not hash pages of 4 KiB with SHA-256");
  }
  if (pages !== Math.ceil(start / pageLength) || code.length !== start) {
    throw new Error("Cannot check the signature: it does not cover all of the code");
  }
  let invalid = 0;
  for (let page = 0; page < pages; page += 1) {
    const stated = directory.subarray(hashes + page * hashLength, hashes + (page + 1) * hashLength);
    if (!stated.equals(hashOfPage(code, page))) invalid += 1;
  }
  return { pages, invalid };
}

function layoutOf(file: Buffer): Layout {
  if (file.readUInt32LE(0) !== magic64) throw new Error("Cannot sign: not a thin 64-bit Mach-O");
  let signature: { start: number; length: number } | undefined;
  let text: Layout["text"] | undefined;
  let offset = 32;
  for (let left = file.readUInt32LE(16); left > 0; left -= 1) {
    const command = file.readUInt32LE(offset);
    if (command === commands.codeSignature) {
      signature = { start: file.readUInt32LE(offset + 8), length: file.readUInt32LE(offset + 12) };
    }
    const name = file.toString("latin1", offset + 8, offset + 24).replace(/\0+$/, "");
    if (command === commands.segment64 && name === "__TEXT") {
      text = {
        offset: file.readBigUInt64LE(offset + 40),
        length: file.readBigUInt64LE(offset + 48),
      };
    }
    offset += file.readUInt32LE(offset + 4);
  }
  if (!signature || !text) throw new Error("Cannot sign: there is no signature to replace");
  if (signature.start + signature.length !== file.length) {
    throw new Error("Cannot sign: the signature is not at the end of the file");
  }
  return { ...signature, text };
}

/** Version 2.4 of the structure, without special slots, requirements or entitlements. */
function codeDirectory(code: Buffer, identifier: string, text: Layout["text"]): Buffer {
  const name = Buffer.from(`${identifier}\0`);
  const pages = Math.ceil(code.length / pageLength);
  const hashes = headerLength + name.length;
  const directory = Buffer.alloc(hashes + pages * hashLength);
  const fields = [
    codeDirectoryMagic,
    directory.length,
    0x2_0400, // version
    0x2_0002, // flags: ad hoc, signed by a linker
    hashes,
    headerLength, // where the identifier is
    0, // special slots
    pages,
    code.length,
  ];
  for (const [index, field] of fields.entries()) directory.writeUInt32BE(field, index * 4);
  directory.writeUInt8(hashLength, 36);
  directory.writeUInt8(2, 37); // SHA-256
  directory.writeUInt8(pageBits, 39);
  directory.writeBigUInt64BE(text.offset, 64);
  directory.writeBigUInt64BE(text.length, 72);
  directory.writeBigUInt64BE(1n, 80); // the segment is that of a main executable
  name.copy(directory, headerLength);
  for (let page = 0; page < pages; page += 1) {
    hashOfPage(code, page).copy(directory, hashes + page * hashLength);
  }
  return directory;
}

function codeDirectoryOffset(file: Buffer, start: number): number {
  if (file.readUInt32BE(start) !== superBlobMagic) {
    throw new Error("Cannot check the signature: it is of an unknown kind");
  }
  const blobs = file.readUInt32BE(start + 8);
  for (let blob = 0; blob < blobs; blob += 1) {
    const offset = start + file.readUInt32BE(start + 12 + blob * 8 + 4);
    if (file.readUInt32BE(offset) === codeDirectoryMagic) return offset;
  }
  throw new Error("Cannot check the signature: it has no code directory");
}

function hashOfPage(code: Buffer, page: number): Buffer {
  const bytes = code.subarray(page * pageLength, (page + 1) * pageLength);
  return createHash("sha256").update(bytes).digest();
}
