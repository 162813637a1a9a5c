import { afterAll, describe, expect, test } from "bun:test";
import { createHash, createPrivateKey, createPublicKey } from "node:crypto";
import {
  chmodSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { serverId } from "../src/adapters/server-key.ts";

const root = mkdtempSync(join(tmpdir(), "server-key-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe("serverId", () => {
  test("is the fingerprint of a P-256 key that is made once and only its owner can read", () => {
    const folder = join(root, "new", "certs");
    const id = serverId(folder);
    const path = join(folder, "server.key");
    const key = createPrivateKey(readFileSync(path));
    expect(key.asymmetricKeyDetails).toEqual({ namedCurve: "prime256v1" });
    const spki = createPublicKey(key).export({ type: "spki", format: "der" });
    expect(`${id}=`).toBe(`SHA256:${createHash("sha256").update(spki).digest("base64")}`);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    expect(readdirSync(folder)).toEqual(["server.key"]);
    expect(serverId(folder)).toBe(id);
    expect(serverId(join(root, "other"))).not.toBe(id);
  });

  test("refuses a key that others can read, and what is not a key", () => {
    const folder = mkdtempSync(join(root, "bad-"));
    const path = join(folder, "server.key");
    writeFileSync(path, "not a key", { mode: 0o600 });
    expect(() => serverId(folder)).toThrow("it is not a private key");
    chmodSync(path, 0o640);
    expect(() => serverId(folder)).toThrow("others may read it");
    expect(readFileSync(path, "utf8")).toBe("not a key");
  });
});
