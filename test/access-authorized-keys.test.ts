import { afterAll, beforeEach, describe, expect, spyOn, test } from "bun:test";
import {
  chmodSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { allows, parseAuthorizedKeys } from "../src/access/authorized-key.ts";
import { AuthorizedKeys } from "../src/access/authorized-keys.ts";
import { fingerprint } from "../src/access/ssh-key.ts";
import { sshString } from "../src/access/ssh-wire.ts";
import { ManualClock } from "./support/manual-clock.ts";
import { makeKey, mpint, run } from "./support/ssh-lab.ts";

const { blob } = makeKey("ed25519");
const key = `ssh-ed25519 ${blob.toString("base64")}`;
const line = (type: string, bytes: Buffer) => `${type} ${bytes.toString("base64")}`;
const security = line("sk-ssh-ed25519@openssh.com", makeKey("ed25519", "ssh:").blob);
const p256 = line("ecdsa-sha2-nistp256", makeKey("p256").blob);
const shortRsa = [
  sshString("ssh-rsa"),
  mpint(Buffer.from([1, 0, 1])),
  mpint(Buffer.alloc(128, 255)),
];
const now = new Date("2026-06-01T12:00:00Z");
const here = { address: "192.0.2.7", now };

/** A line, and what becomes of it: let in from `here`, kept out, nothing, or refused for a reason. */
const corpus: readonly (readonly [string, "in" | "out" | "nothing" | RegExp])[] = [
  [key, "in"],
  [`${key} me@laptop`, "in"],
  [`  \t${key}\tme@laptop  `, "in"],
  [`${key} a "quoted, comment`, "in"],
  [security, "in"],
  [p256, "in"],
  ["", "nothing"],
  ["   \t", "nothing"],
  ["# a comment", "nothing"],
  [`  # ${key}`, "nothing"],
  [`restrict ${key}`, "in"],
  [`no-pty,no-port-forwarding,NO-X11-Forwarding,no-agent-forwarding,no-user-rc ${key}`, "in"],
  [`no-touch-required ${security}`, "in"],
  [`from="192.0.2.7" ${key}`, "in"],
  [`FROM="192.0.2.0/24" ${key}`, "in"],
  [`from="192.0.2.*,10.0.0.0/8" ${key}`, "in"],
  [`from="192.0.2.?" ${key}`, "in"],
  [`restrict,from="192.0.2.0/24,!192.0.2.7" ${key}`, "out"],
  [`from="!192.0.2.8,*" ${key}`, "in"],
  [`from="!192.0.2.7" ${key}`, "out"],
  [`from="198.51.100.0/24,2001:db8::/32" ${key}`, "out"],
  [`from="*.example.com" ${key}`, "out"],
  [`expiry-time="20260602" ${key}`, "in"],
  [`expiry-time="202606011200Z" ${key}`, "out"],
  [`expiry-time="20260601120001Z" ${key}`, "in"],
  [`expiry-time="20300101",expiry-time="20200101Z" ${key}`, "out"],
  [`expiry-time="20260230" ${key}`, /expiry time/],
  [`expiry-time="tomorrow" ${key}`, /expiry time/],
  [`from="192.0.2.7/24" ${key}`, /longer than its length/],
  [`from="192.0.2.0/33" ${key}`, /without a valid length/],
  [`from="10.0.0.1,,10.0.0.2" ${key}`, /empty pattern/],
  [`from="10.0.0.1",from="10.0.0.2" ${key}`, /"from" twice/],
  [`from=10.0.0.1 ${key}`, /not written as sshd reads them/],
  [`from="10.0.0.1 ${key}`, /a quote is not closed/],
  [`command="echo \\"hi, there\\"; from=\\"*\\"",restrict ${key}`, /"command"/],
  [`cert-authority ${key}`, /"cert-authority"/],
  [`principals="a,b" ${key}`, /"principals"/],
  [`environment="A=B" ${key}`, /"environment"/],
  [`permitopen="localhost:80" ${key}`, /"permitopen"/],
  [`permitlisten="80" ${key}`, /"permitlisten"/],
  [`tunnel="0" ${key}`, /"tunnel"/],
  [`verify-required ${security}`, /"verify-required"/],
  [`no-such-thing ${key}`, /"no-such-thing"/],
  [`restrict="x" ${key}`, /"restrict"/],
  [`restrict, ${key}`, /not written as sshd reads them/],
  [`,restrict ${key}`, /not written as sshd reads them/],
  ["ssh-ed25519", /no key in it/],
  [`ssh-ed25519 ${blob.toString("base64")}x`, /not in base64/],
  [`ssh-rsa ${blob.toString("base64")}`, /not of the type/],
  [`ssh-ed25519 ${blob.subarray(0, -1).toString("base64")}`, /cut short/],
  [line("ssh-dss", sshString("ssh-dss")), /DSA/],
  [
    line("ssh-ed25519-cert-v01@openssh.com", sshString("ssh-ed25519-cert-v01@openssh.com")),
    /certificates/,
  ],
  [line("ssh-rsa", Buffer.concat(shortRsa)), /this one has 1024/],
  [`# ${"x".repeat(20_000)}`, "nothing"],
  [`${key} ${"x".repeat(20_000)}`, /too long/],
];

function from(patterns: string, address: string): boolean {
  const [found] = parseAuthorizedKeys(`from="${patterns}" ${key}`).keys;
  return found !== undefined && allows(found, { address, now });
}

describe("a line of authorized_keys", () => {
  for (const [text, expected] of corpus) {
    const outcome =
      expected instanceof RegExp ? `is refused, ${expected.source}` : `is ${expected}`;
    test(`${outcome}: ${text.slice(0, 60)}`, () => {
      const { keys, refused } = parseAuthorizedKeys(text);
      if (expected === "nothing")
        return expect({ keys, refused }).toEqual({ keys: [], refused: [] });
      if (expected instanceof RegExp) {
        expect(keys).toEqual([]);
        expect(refused).toEqual([{ line: 1, reason: expect.stringMatching(expected) }]);
        return undefined;
      }
      expect(refused).toEqual([]);
      return expect(keys.map((each) => allows(each, here))).toEqual([expected === "in"]);
    });
  }

  test("counts from one, with CRLF, a byte order mark, and no end of line at the end", () => {
    const text = `\uFEFF${key} first\r\n\r\n# x\r\ncommand="x" ${key}\r\nrestrict ${p256} last`;
    const { keys, refused } = parseAuthorizedKeys(text);
    expect(keys.map(({ comment, type }) => [type, comment])).toEqual([
      ["ssh-ed25519", "first"],
      ["ecdsa-sha2-nistp256", "last"],
    ]);
    expect(refused.map((each) => each.line)).toEqual([4]);
  });

  test("has an expiry time in the machine's zone when it names none", () => {
    const script = `
      import { allows, parseAuthorizedKeys } from "${join(import.meta.dir, "../src/access/authorized-key.ts")}";
      const { keys } = parseAuthorizedKeys(process.env.LINE);
      const at = (now) => allows(keys[0], { address: "::1", now: new Date(now) });
      console.log(at("2026-01-14T22:59:59Z"), at("2026-01-14T23:00:00Z"));`;
    const env = { LINE: `expiry-time="20260115" ${key}`, TZ: "Europe/Berlin" };
    const { stdout } = Bun.spawnSync([process.execPath, "-e", script], { env });
    expect(stdout.toString()).toBe("true false\n");
  });

  test("matches addresses in every spelling, and IPv4 within IPv6 as IPv4", () => {
    expect(from("2001:db8::/32", "2001:DB8:0:0:1::1")).toBe(true);
    expect(from("2001:db8::/33", "2001:db8:8000::1")).toBe(false);
    expect(from("2001:db8:*", "2001:0db8:0000::5")).toBe(true);
    expect(from("192.0.2.0/25", "::ffff:192.0.2.127")).toBe(true);
    expect(from("192.0.2.0/25", "::FFFF:C000:0280")).toBe(false);
    expect(from("::ffff:192.0.2.0", "192.0.2.0")).toBe(true);
    expect(from("fe80::/10", "fe80::1%eth0")).toBe(true);
    expect(from("0.0.0.0/0", "::1")).toBe(false);
    expect(from("*", "not an address")).toBe(false);
  });
});

describe("AuthorizedKeys", () => {
  const root = mkdtempSync(join(tmpdir(), "authorized-keys-"));
  afterAll(() => rmSync(root, { recursive: true, force: true }));
  const path = join(root, "authorized_keys");
  const second = join(root, "more_keys");
  const name = fingerprint(blob);
  const visit = { address: "192.0.2.7", now };
  let clock: ManualClock;
  let logged: string[];
  const open = (files = [{ path, required: false }]) =>
    new AuthorizedKeys({
      files,
      clock,
      log: (level, text, fields) => logged.push(`${level}: ${text} ${JSON.stringify(fields)}`),
    });
  beforeEach(() => {
    clock = new ManualClock();
    logged = [];
    for (const file of [path, second]) rmSync(file, { force: true });
  });

  test("finds a key by the fingerprint that ssh-keygen prints", () => {
    writeFileSync(path, `${key} canary-comment\n`, { mode: 0o600 });
    const [, printed = ""] = run(["ssh-keygen", "-l", "-f", path]).split(" ");
    expect(open().find(printed, visit)).toMatchObject({ blob, comment: "canary-comment" });
    expect(logged.join()).not.toContain("canary");
  });

  test("reads a changed file again, but looks at most once a second", () => {
    writeFileSync(path, `${key}\n`, { mode: 0o600 });
    const keys = open();
    expect(keys.all().map((each) => each.fingerprint)).toEqual([name]);
    writeFileSync(path, `#${key}\n`);
    clock.pass(999);
    expect(keys.find(name, visit)).toBeDefined();
    clock.pass(1);
    expect(keys.find(name, visit)).toBeUndefined();
    writeFileSync(`${path}.new`, `${key}\n`, { mode: 0o600 });
    renameSync(`${path}.new`, path);
    clock.pass(1_000);
    expect(keys.find(name, visit)).toBeDefined();
    rmSync(path);
    clock.pass(1_000);
    expect(keys.all()).toEqual([]);
  });

  test("notices a change that leaves size and time of modification as they were", () => {
    writeFileSync(path, `${key}\n`, { mode: 0o600 });
    const keys = open();
    const { atime, mtime } = statSync(path);
    writeFileSync(path, `${key}\n`.replace("ssh-", "ssj-"));
    utimesSync(path, atime, mtime);
    clock.pass(1_000);
    expect(keys.find(name, visit)).toBeUndefined();
  });

  test("lets a key in by any of its lines, in any file", () => {
    writeFileSync(path, `from="10.0.0.1" ${key} narrow\nexpiry-time="20200101" ${key} over\n`);
    writeFileSync(second, `from="192.0.2.0/24" ${key} wide\n`);
    const keys = open([path, second].map((file) => ({ path: file, required: true })));
    expect(keys.find(name, visit)?.comment).toBe("wide");
    expect(keys.find(name, { ...visit, address: "10.0.0.1" })?.comment).toBe("narrow");
    expect(keys.find(name, { ...visit, address: "10.0.0.2" })).toBeUndefined();
    expect(keys.all()).toHaveLength(1);
  });

  test("takes nothing from a file that others can write, and says so once", () => {
    writeFileSync(path, `${key}\n`);
    for (const mode of [0o620, 0o602]) {
      chmodSync(path, mode);
      logged = [];
      const keys = open();
      clock.pass(5_000);
      expect(keys.find(name, visit)).toBeUndefined();
      expect(logged).toEqual([expect.stringContaining("others may change")]);
      chmodSync(path, 0o644);
      clock.pass(5_000);
      expect(keys.find(name, visit)).toBeDefined();
    }
  });

  test("takes nothing from a file of another user", () => {
    writeFileSync(path, `${key}\n`, { mode: 0o600 });
    const user = process.getuid?.() ?? 0;
    const isRoot = user === 0;
    if (isRoot) run(["chown", "65534", path]);
    // Only root can give a file away; everybody else can be somebody else.
    using _ = isRoot ? null : spyOn(process, "getuid").mockReturnValue(user + 1);
    expect(open().all()).toEqual([]);
    expect(logged).toEqual([expect.stringContaining("belongs to another user")]);
  });

  test("is not held up by a pipe or a folder, follows a link, and reports what must be there", () => {
    run(["mkfifo", path]);
    symlinkSync("nowhere", second);
    const keys = open([path, second].map((file) => ({ path: file, required: true })));
    expect(keys.all()).toEqual([]);
    expect(logged).toEqual([
      expect.stringContaining("it is not a file"),
      expect.stringContaining("is missing"),
    ]);
    writeFileSync(join(root, "nowhere"), `${key}\ncommand="x" ${key}\n`);
    clock.pass(1_000);
    expect(keys.find(name, visit)).toBeDefined();
    expect(logged.slice(2)).toEqual([
      expect.stringMatching(/^warn: .*"line":2,"reason":"the option \\"command\\"/),
      expect.stringContaining('"keys":1'),
    ]);
  });
});
