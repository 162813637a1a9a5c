import { beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { type Binding, loginText, newChallenge, pairingText } from "../src/access/challenge.ts";
import { pairingQr, pairingUrl, typedCode } from "../src/access/pairing-code.ts";
import { type Candidate, digitsOf, Pairing, type PairingAttempt } from "../src/access/pairing.ts";
import { fingerprint } from "../src/access/ssh-key.ts";
import { ManualClock } from "./support/manual-clock.ts";
import { craft, hmac, type MadeKey, makeKey, signWith } from "./support/ssh-lab.ts";

const binding: Binding = {
  audience: "Host.Local:8443",
  server: `SHA256:${"s".repeat(43)}`,
  challenge: newChallenge(),
};
const device = makeKey("p256");

/** What a device sends that was shown this code: written down here from the protocol's text. */
function proof(code: Buffer, key: MadeKey = device, at: Binding = binding): PairingAttempt {
  const name = "Ada's phone";
  const lines = [
    "pocket-agent-pair-v1",
    `audience=${at.audience.toLowerCase()}`,
    `server=${at.server}`,
    `challenge=${at.challenge}`,
    `key=${key.blob.toString("base64")}`,
    `name=${name}`,
  ];
  const message = lines.map((line) => `${line}\n`).join("");
  const namespace = "pair@pocket-agent";
  const signer = (text: Buffer) => signWith(key, text);
  const signature = craft({ keyBlob: key.blob, namespace, message, signer });
  const publicKey = key.blob.toString("base64");
  const address = "192.0.2.7";
  return { publicKey, name, signature, mac: hmac(code, message), address, binding };
}

let clock: ManualClock;
let pairing: Pairing;
let shown: Candidate[];
let ends: unknown[];
beforeEach(() => {
  clock = new ManualClock();
  pairing = new Pairing(clock);
  shown = [];
  ends = [];
});
const open = (answer = true) =>
  pairing.open({
    scope: "approve",
    ended: (how) => ends.push(how),
    confirm: async (candidate) => {
      shown.push(candidate);
      return answer;
    },
  }).code;

describe("Pairing", () => {
  test("lets in the device that knows the code and holds its key, once it is confirmed", async () => {
    const code = open();
    const attempt = proof(code);
    expect(pairing.isOpen).toBe(true);
    const outcome = await pairing.attempt(attempt);
    const digest = createHash("sha256").update(device.blob).digest();
    expect(shown).toEqual([
      {
        name: "Ada's phone",
        address: "192.0.2.7",
        fingerprint: fingerprint(device.blob),
        digits: String(digest.readUInt32BE() % 1_000_000).padStart(6, "0"),
      },
    ]);
    const acknowledged = pairingText(binding, { keyBlob: device.blob, name: attempt.name });
    expect(outcome).toEqual({
      paired: true,
      keyBlob: device.blob,
      scope: "approve",
      serverMac: hmac(code, acknowledged.replace("pair-v1", "pair-ack-v1")),
      ended: expect.any(Function),
    });
    expect(ends).toEqual([]);
    expect(pairing.isOpen).toBe(false);
    expect(await pairing.attempt(attempt)).toEqual({ paired: false, reason: "no code is open" });
  });

  test("takes an Ed25519 key, and its line instead of its blob", async () => {
    const key = makeKey("ed25519");
    const attempt = proof(open(), key);
    const publicKey = `ssh-ed25519 ${attempt.publicKey} comment`;
    expect((await pairing.attempt({ ...attempt, publicKey })).paired).toBe(true);
  });

  test("keeps out who is declined, and the code is used up", async () => {
    const attempt = proof(open(false));
    expect(await pairing.attempt(attempt)).toMatchObject({
      reason: "it was declined at the terminal",
    });
    expect(shown).toHaveLength(1);
    expect(pairing.isOpen).toBe(false);
    expect(ends).toEqual(["declined"]);
  });

  test("is over for others as soon as the terminal is asked", async () => {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const { code } = pairing.open({
      scope: "full",
      confirm: () => promise,
      ended: () => undefined,
    });
    const first = pairing.attempt(proof(code));
    const second = await pairing.attempt(proof(code, makeKey("p256")));
    resolve(true);
    expect([(await first).paired, second.paired]).toEqual([true, false]);
  });

  test("is over after 120 s, and when it is closed", async () => {
    const code = open();
    clock.pass(119_999);
    expect(pairing.isOpen).toBe(true);
    clock.pass(1);
    expect(await pairing.attempt(proof(code))).toMatchObject({ reason: "no code is open" });
    const ended = (how: unknown) => ends.push(how);
    const next = pairing.open({ scope: "full", confirm: async () => true, ended });
    next.close();
    next.close();
    expect(await pairing.attempt(proof(next.code))).toMatchObject({ reason: "no code is open" });
    expect(ends).toEqual(["expired", "closed"]);
  });

  test("forgets the code before when a new one is made", async () => {
    const first = open();
    const second = open();
    expect(await pairing.attempt(proof(first))).toMatchObject({ reason: "the code is wrong" });
    expect((await pairing.attempt(proof(second))).paired).toBe(true);
    expect(ends).toEqual(["replaced"]);
  });

  test("is not closed by wrong attempts, for a stranger must not keep the owner out", async () => {
    const code = open();
    for (let count = 0; count < 50; count += 1)
      expect(await pairing.attempt(proof(Buffer.alloc(16, count)))).toMatchObject({
        paired: false,
      });
    expect(shown).toEqual([]);
    expect((await pairing.attempt(proof(code))).paired).toBe(true);
  });

  const wrong: Record<string, (good: PairingAttempt, code: Buffer) => Partial<PairingAttempt>> = {
    "another challenge": () => ({ binding: { ...binding, challenge: newChallenge() } }),
    "another audience": () => ({ binding: { ...binding, audience: "evil.example:8443" } }),
    "another server": () => ({ binding: { ...binding, server: "SHA256:relay" } }),
    "another name": () => ({ name: "Ada's Phone" }),
    "a name with a line break": () => ({ name: "Ada's phone\n" }),
    "another's key": () => ({ publicKey: makeKey("p256").blob.toString("base64") }),
    "no key": () => ({ publicKey: "key" }),
    "a key that is none": (_, code) => proof(code, { ...device, blob: Buffer.from("junk") }),
    "no mac": () => ({ mac: "" }),
    "a mac of another alphabet": ({ mac }) => ({ mac: `${mac.replaceAll(/[+/=]/g, "_")} ` }),
    "a signature by another key": (_, code) => ({
      signature: proof(code, makeKey("p256")).signature,
    }),
    "a signature for another connection": (_, code) => ({
      signature: proof(code, device, { ...binding, challenge: newChallenge() }).signature,
    }),
    "no signature": () => ({ signature: "" }),
  };
  for (const [what, change] of Object.entries(wrong)) {
    test(`keeps out ${what}, and the code stays`, async () => {
      const code = open();
      const good = proof(code);
      expect((await pairing.attempt({ ...good, ...change(good, code) })).paired).toBe(false);
      expect(shown).toEqual([]);
      expect((await pairing.attempt(good)).paired).toBe(true);
    });
  }
});

describe("a pairing code", () => {
  const code = Buffer.from("000102030405060708090a0b0c0d0effff".slice(0, 32), "hex");

  test("is 26 characters of base32, in groups to be typed", () => {
    expect(typedCode(code)).toBe("AAAQ-EAYE-AUDA-OCAJ-BIFQ-YDIO-74");
    expect(typedCode(Buffer.alloc(16))).toBe("AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AA");
    expect(typedCode(open()).replaceAll("-", "")).toMatch(/^[A-Z2-7]{26}$/);
  });

  test("is in the fragment of a URL with the server's fingerprint, whatever the host", () => {
    const server = "SHA256:a+b/c";
    const place = { port: 8443, secure: true, code, fingerprint: server };
    const url = new URL(pairingUrl({ ...place, host: "host.local" }));
    expect(url.origin).toBe("https://host.local:8443");
    const fragment = new URLSearchParams(url.hash.slice(1));
    expect(fragment.get("pair")).toBe("AAAQEAYEAUDAOCAJBIFQYDIO74");
    expect(fragment.get("fp")).toBe(server);
    expect(pairingUrl({ ...place, host: "fe80::1" })).toStartWith("https://[fe80::1]:8443/#pair=");
  });

  test("fits a terminal as a QR code", () => {
    const place = { host: "host.local", port: 8443, secure: true };
    const url = pairingUrl({ ...place, code, fingerprint: binding.server });
    const rows = pairingQr(url).split("\n");
    expect(rows.length).toBeLessThan(35);
    expect(new Set(rows.map((row) => row.length)).size).toBe(1);
    expect(pairingQr(url)).toMatch(/^[█▀▄ \n]+$/);
  });

  test("gives six digits for every key", () => {
    for (let count = 0; count < 100; count += 1)
      expect(digitsOf(Buffer.from([count]))).toMatch(/^\d{6}$/);
  });
});

test("The text that is signed to log in is the protocol's, with the host in lower case", () => {
  expect(loginText({ audience: "LocalHost:8443", server: "SHA256:x", challenge: "abc=" })).toBe(
    "pocket-agent-auth-v1\naudience=localhost:8443\nserver=SHA256:x\nchallenge=abc=\n",
  );
  expect(Buffer.from(newChallenge(), "base64")).toHaveLength(32);
  expect(newChallenge()).not.toBe(newChallenge());
});
