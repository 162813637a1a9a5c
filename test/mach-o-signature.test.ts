import { describe, expect, test } from "bun:test";
import { checkPages, signAdHoc } from "../scripts/mach-o-signature.ts";

const pages = 5;
const codeLength = (pages - 1) * 4096 + 100;

/** The least a file needs: a header, two load commands, some code, and room for a signature. */
function executable(room: number): Buffer {
  const file = Buffer.alloc(codeLength + room, 0xab);
  file.fill(0, 0, 32 + 72 + 16);
  file.writeUInt32LE(0xfeedfacf, 0);
  file.writeUInt32LE(2, 16);
  file.writeUInt32LE(0x19, 32);
  file.writeUInt32LE(72, 36);
  file.write("__TEXT", 40, "latin1");
  file.writeBigUInt64LE(BigInt(codeLength), 32 + 48);
  file.writeUInt32LE(0x1d, 104);
  file.writeUInt32LE(16, 108);
  file.writeUInt32LE(codeLength, 112);
  file.writeUInt32LE(room, 116);
  return file;
}

describe("signAdHoc", () => {
  test("leaves the code alone, and hashes every page of it", () => {
    const file = executable(1_000);
    const code = file.toString("hex", 0, codeLength);
    signAdHoc(file, "pocket-agent");
    expect(file.toString("hex", 0, codeLength)).toBe(code);
    expect(file.includes("pocket-agent\0")).toBe(true);
    expect(checkPages(file)).toEqual({ pages, invalid: 0 });
  });

  test.each([0x200, 4_096, 3 * 4_096 - 1, codeLength - 1])("notices a change at byte %p", (at) => {
    const file = executable(1_000);
    signAdHoc(file, "pocket-agent");
    file.writeUInt8(0xac, at);
    expect(checkPages(file)).toEqual({ pages, invalid: 1 });
  });

  test("gives the same bytes whatever signature was there before", () => {
    const [first, second] = [executable(1_000), executable(1_000)];
    second.fill(0xcd, codeLength);
    signAdHoc(first, "pocket-agent");
    signAdHoc(second, "pocket-agent");
    expect(first.equals(second)).toBe(true);
  });

  test("refuses what it cannot sign", () => {
    expect(() => signAdHoc(executable(200), "pocket-agent")).toThrow("do not fit into 200");
    expect(() => signAdHoc(Buffer.alloc(64), "pocket-agent")).toThrow("not a thin 64-bit Mach-O");
    const longer = Buffer.concat([executable(1_000), Buffer.alloc(1)]);
    expect(() => signAdHoc(longer, "pocket-agent")).toThrow("not at the end");
    expect(() => checkPages(executable(1_000))).toThrow("of an unknown kind");
  });
});
