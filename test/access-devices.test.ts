import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Devices, isDeviceName } from "../src/access/devices.ts";
import { fingerprint } from "../src/access/ssh-key.ts";
import { Tokens } from "../src/access/tokens.ts";
import { ManualClock } from "./support/manual-clock.ts";
import { makeKey } from "./support/ssh-lab.ts";

const minuteMs = 60_000;
const dayMs = 24 * 60 * minuteMs;
const { blob } = makeKey("p256");
const phone = {
  name: "Phone",
  scope: "approve",
  kind: "paired",
  key: blob.toString("base64"),
} as const;
const script = { name: "cron", scope: "read", kind: "token", key: null } as const;
const laptop = { fingerprint: fingerprint(makeKey("ed25519").blob), comment: "me@laptop" };

let dataDir: string;
let clock: ManualClock;
let logged: string[];
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), "devices-"));
  clock = new ManualClock();
  logged = [];
});
afterEach(() => rmSync(dataDir, { recursive: true, force: true }));

const deps = () => ({ dataDir, clock, log: (_: string, text: string) => void logged.push(text) });
const openDevices = () => new Devices(deps());
const openTokens = () => new Tokens(deps());
const yes = () => true;
const onDisk = (name: string) => readFileSync(join(dataDir, name), "utf8");

/** Waits for a write that nobody was given a promise of. */
async function written(name: string, test_: (text: string) => boolean): Promise<void> {
  while (!existsSync(join(dataDir, name)) || !test_(onDisk(name))) await Bun.sleep(1);
}

describe("Devices", () => {
  test("are on the disk, for their owner only, when adding them resolves", async () => {
    await using devices = openDevices();
    const added = await devices.add(phone);
    expect(added).toEqual({
      ...phone,
      id: expect.stringMatching(/^[0-9a-f-]{36}$/),
      created_at: "2026-01-01T00:00:00.000Z",
      last_seen: null,
      address: null,
    });
    expect(openDevices().list()).toEqual([added]);
    expect(devices.withKey(blob)).toEqual(added);
    expect(statSync(join(dataDir, "devices.json")).mode & 0o777).toBe(0o600);
    expect(readdirSync(dataDir)).toEqual(["devices.json"]);
  });

  test("belong to one key each: pairing it again replaces the device", async () => {
    await using devices = openDevices();
    const first = await devices.add(phone);
    const again = await devices.add({ ...phone, scope: "read" });
    await devices.add(script);
    await devices.add(script);
    expect(devices.get(first.id)).toBeUndefined();
    expect(devices.withKey(blob)).toEqual(again);
    expect(openDevices().list()).toHaveLength(3);
  });

  test("an authorized key is a device of full scope, until it is revoked", async () => {
    await using devices = openDevices();
    expect(devices.ofKey(laptop)).toMatchObject({
      id: laptop.fingerprint,
      name: "me@laptop",
      scope: "full",
      kind: "ssh",
    });
    expect(devices.ofKey(laptop)).toBe(devices.list()[0]);
    const saved = devices.revoke(laptop.fingerprint);
    expect(devices.ofKey(laptop)).toBeUndefined();
    expect(devices.list()).toEqual([]);
    await saved;
    const later = openDevices();
    expect([later.isDenied(laptop.fingerprint), later.ofKey(laptop)]).toEqual([true, undefined]);
    await later.readmit(laptop.fingerprint);
    expect(openDevices().ofKey({ ...laptop, comment: "a\u202eb" })?.name).toBe(laptop.fingerprint);
  });

  test("a key that never came can be revoked too, but not just anything", async () => {
    await using devices = openDevices();
    await devices.revoke(laptop.fingerprint);
    await devices.revoke("x".repeat(1_000));
    expect(JSON.parse(onDisk("devices.json")).denied).toEqual([laptop.fingerprint]);
  });

  test("are gone from memory at once when revoked, and then from the disk", async () => {
    await using devices = openDevices();
    const { id } = await devices.add(phone);
    const saved = devices.revoke(id);
    expect(devices.get(id)).toBeUndefined();
    expect(devices.withKey(blob)).toBeUndefined();
    await saved;
    expect(openDevices().list()).toEqual([]);
  });

  test("can be renamed", async () => {
    await using devices = openDevices();
    const { id } = await devices.add(phone);
    expect(await devices.rename(id, "Tablet")).toBe(true);
    expect(openDevices().get(id)?.name).toBe("Tablet");
    expect(await devices.rename("nobody", "Tablet")).toBe(false);
  });

  test("are saved a minute after they were seen, all at once, and at the end", async () => {
    const devices = openDevices();
    const { id } = await devices.add(phone);
    const before = onDisk("devices.json");
    devices.seen(id, "192.0.2.1");
    clock.pass(minuteMs - 1);
    devices.seen(id, "192.0.2.2");
    expect(onDisk("devices.json")).toBe(before);
    clock.pass(1);
    await written("devices.json", (text) => text.includes("192.0.2.2"));
    expect(openDevices().get(id)?.last_seen).toBe("2026-01-01T00:00:59.999Z");
    devices.seen(id, "192.0.2.3");
    await devices[Symbol.asyncDispose]();
    expect(openDevices().get(id)?.address).toBe("192.0.2.3");
  });

  test("many changes in a row all are in what is saved", async () => {
    await using devices = openDevices();
    await Promise.all(Array.from({ length: 200 }, () => devices.add(script)));
    expect(openDevices().list()).toEqual(devices.list());
  });

  test("hold in memory when they cannot be saved, and the caller is told", async () => {
    const devices = openDevices();
    const { id } = await devices.add(phone);
    rmSync(dataDir, { recursive: true });
    const saved = devices.revoke(id);
    expect(devices.get(id)).toBeUndefined();
    expect(await saved.catch((cause: unknown) => cause)).toMatchObject({
      code: "STORAGE_ERROR",
      details: { reason: "ENOENT" },
    });
    devices.ofKey(laptop);
    clock.pass(minuteMs);
    while (logged.length === 0) await Bun.sleep(1);
    expect(logged).toEqual(["cannot save who may come in"]);
  });

  test("do not open from a file that is damaged, or that others can read", () => {
    const path = join(dataDir, "devices.json");
    for (const text of ["", "{", "[]", '{"version":2,"devices":[],"denied":[]}']) {
      writeFileSync(path, text, { mode: 0o600 });
      expect(openDevices).toThrow(/^Cannot use ".*devices.json": .*restore it, or move it away$/);
    }
    writeFileSync(path, '{"version":1,"devices":[],"denied":[]}');
    expect(openDevices().list()).toEqual([]);
    chmodSync(path, 0o640);
    expect(openDevices).toThrow("others may change or read it");
  });

  test("have names of 1 to 64 characters without tricks", () => {
    const good = [
      "x",
      "Ada's iPhone 17",
      "x".repeat(64),
      "\u{1F4F1}".repeat(64),
      "Büro-Gerät",
      "电话",
    ];
    for (const name of good) expect([name, isDeviceName(name)]).toEqual([name, true]);
    const bad = [
      "",
      " ",
      " x",
      "x ",
      "a  b",
      "x".repeat(65),
      "a\nb",
      "a\u0000",
      "a\u009bb",
      "a\u202eb",
    ];
    for (const name of [...bad, "a\u2028b", "a\u200bb", "\ud800", "a\u00a0b", "a\u3000b"])
      expect([name, isDeviceName(name)]).toEqual([name, false]);
  });
});

describe("Tokens", () => {
  test("stand for a device and its key, and only their digests are kept", async () => {
    await using tokens = openTokens();
    const { token, expires_at } = await tokens.issue("phone", laptop.fingerprint);
    expect(token).toMatch(/^pat_[A-Za-z0-9_-]{43}$/);
    expect(expires_at).toBe("2026-01-08T00:00:00.000Z");
    expect(onDisk("tokens.json")).not.toContain(token.slice(4));
    expect(statSync(join(dataDir, "tokens.json")).mode & 0o777).toBe(0o600);
    const seen: unknown[] = [];
    const used = openTokens().use(token, (grant) => seen.push(grant.device, grant.key) > 0);
    expect(used?.grant).toMatchObject({ device: "phone", key: laptop.fingerprint });
    expect(seen).toEqual(["phone", laptop.fingerprint]);
  });

  test("are nothing when wrong in one character, or when the key does not hold", async () => {
    await using tokens = openTokens();
    const { token } = await tokens.issue("phone", null);
    const last = token.endsWith("A") ? "Q" : "A";
    const wrong = ["", "pat_", token.slice(4), `${token} `, `${token}A`, token.slice(0, -1) + last];
    for (const text of [...wrong, "__proto__"]) expect(tokens.use(text, yes)).toBeUndefined();
    expect(tokens.use(token, () => false)).toBeUndefined();
    expect(tokens.use(token, yes)).toBeDefined();
  });

  test("end after seven days without use, and after thirty in any case", async () => {
    await using tokens = openTokens();
    const { token: idle } = await tokens.issue("phone", null);
    const { token } = await tokens.issue("phone", null);
    for (let day = 0; day < 29; day += 1) {
      clock.pass(dayMs);
      expect(tokens.use(token, yes)?.grant.device).toBe("phone");
      expect(tokens.use(idle, () => day >= 6)).toBeUndefined();
    }
    expect(tokens.use(token, yes)?.expires_at).toBe("2026-01-31T00:00:00.000Z");
    clock.pass(dayMs - 1);
    expect(tokens.use(token, yes)).toBeDefined();
    clock.pass(1);
    expect(tokens.use(token, yes)).toBeUndefined();
    await tokens.issue("phone", null);
    expect(JSON.parse(onDisk("tokens.json")).tokens).toHaveLength(1);
  });

  test("are at most eight for a device: the oldest makes room", async () => {
    await using tokens = openTokens();
    const other = await tokens.issue("laptop", null);
    const issued = [];
    for (let count = 0; count < 10; count += 1) issued.push(await tokens.issue("phone", null));
    const live = issued.map(({ token }) => tokens.use(token, yes) !== undefined);
    expect(live).toEqual([false, false, ...Array.from({ length: 8 }, () => true)]);
    expect(tokens.use(other.token, yes)).toBeDefined();
  });

  test("of a device all die with it, at once and on the disk", async () => {
    await using tokens = openTokens();
    const [first, second, other] = await Promise.all([
      tokens.issue("phone", null),
      tokens.issue("phone", null),
      tokens.issue("laptop", null),
    ]);
    const saved = tokens.drop("phone");
    const alive = (from: Tokens) =>
      [first, second, other].map(({ token }) => from.use(token, yes) !== undefined);
    expect(alive(tokens)).toEqual([false, false, true]);
    await saved;
    expect(alive(openTokens())).toEqual([false, false, true]);
  });

  test("are saved within a minute after use", async () => {
    await using tokens = openTokens();
    const { token } = await tokens.issue("phone", null);
    clock.pass(dayMs);
    tokens.use(token, yes);
    clock.pass(minuteMs);
    await written("tokens.json", (text) => text.includes('"used_at": "2026-01-02T00:00:00.000Z"'));
  });
});
