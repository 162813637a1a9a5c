import { afterAll, describe, expect, test } from "bun:test";
import { generateKeyPairSync, sign } from "node:crypto";
import { fingerprint, parseSshKey, publicKeyBlob } from "../src/access/ssh-key.ts";
import { verifySshSignature } from "../src/access/ssh-signature.ts";
import { Malformed, sshString } from "../src/access/ssh-wire.ts";
import {
  armor,
  craft,
  dearmor,
  makeKey,
  mpint,
  type SignatureParts,
  signSecurely,
  signWith,
  SshLab,
} from "./support/ssh-lab.ts";

const lab = new SshLab();
afterAll(() => lab[Symbol.dispose]());

const namespace = "auth@pocket-agent";
const message = "pocket-agent-auth-v1\naudience=localhost:8443\nserver=SHA256:x\nchallenge=y\n";
const keys = [
  lab.key("ed25519"),
  ...[256, 384, 521].map((bits) => lab.key("ecdsa", bits)),
  ...[2048, 3072].map((bits) => lab.key("rsa", bits)),
];
const accepts = (armored: string, keyBlob: Buffer) =>
  verifySshSignature({ armored, keyBlob, namespace, message });

describe("a signature by the real ssh-keygen", () => {
  for (const key of keys) {
    test(`is accepted: ${key.name}, with sha256 and sha512`, () => {
      for (const hash of ["sha256", "sha512"])
        expect(accepts(key.sign(message, { hash }), key.blob)).toBe(true);
      const withReturns = key.sign(message).trim().replaceAll("\n", "\r\n");
      expect(accepts(withReturns, key.blob)).toBe(true);
    });

    test(`is refused for another message, namespace or key: ${key.name}`, () => {
      const armored = key.sign(message);
      const claim = { armored, keyBlob: key.blob, namespace, message };
      expect(verifySshSignature({ ...claim, message: `${message} ` })).toBe(false);
      expect(verifySshSignature({ ...claim, namespace: "pair@pocket-agent" })).toBe(false);
      expect(accepts(key.sign(message, { namespace: "file" }), key.blob)).toBe(false);
      for (const other of keys.filter((candidate) => candidate !== key))
        expect(accepts(armored, other.blob)).toBe(false);
    });

    test(`belongs to a key named as ssh-keygen names it: ${key.name}`, () => {
      expect(fingerprint(key.blob)).toBe(key.fingerprint);
      expect(publicKeyBlob(key.line)).toEqual(key.blob);
      expect(publicKeyBlob(`${key.line.split(" ").slice(0, 2).join(" ")}\n`)).toEqual(key.blob);
      expect(publicKeyBlob(key.blob.toString("base64"))).toEqual(key.blob);
      expect(key.line).toStartWith(`${parseSshKey(key.blob).type} `);
    });
  }

  test("is refused when RSA signs with SHA-1, or has fewer than 2048 bits", () => {
    const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
    const keyBlob = rsaBlob(publicKey.export({ format: "jwk" }));
    const signed = (algorithm: string, hash: string) =>
      craft({ keyBlob, message, signer: rsaSigner(privateKey, algorithm, hash) });
    expect(accepts(signed("rsa-sha2-256", "sha256"), keyBlob)).toBe(true);
    expect(accepts(signed("rsa-sha2-512", "sha512"), keyBlob)).toBe(true);
    expect(accepts(signed("ssh-rsa", "sha1"), keyBlob)).toBe(false);
    expect(accepts(signed("rsa-sha2-256", "sha512"), keyBlob)).toBe(false);
    const small = lab.key("rsa", 1024);
    expect(accepts(small.sign(message), small.blob)).toBe(false);
    expect(() => parseSshKey(small.blob)).toThrow("this one has 1024");
    const modulus = Buffer.alloc(256, 0xff).fill(1, 0, 1).toString("base64url");
    expect(() => parseSshKey(rsaBlob({ n: modulus, e: "AQAB" }))).toThrow("this one has 2041");
  });
});

describe("a signature made by hand", () => {
  const key = makeKey("ed25519");
  const other = makeKey("ed25519");
  const good: SignatureParts = {
    keyBlob: key.blob,
    message,
    signer: (signed) => signWith(key, signed),
  };

  test("is accepted, and with a reserved field that was signed along", () => {
    expect(accepts(craft(good), key.blob)).toBe(true);
    expect(accepts(craft({ ...good, reserved: "later" }), key.blob)).toBe(true);
  });

  const wrong: Record<string, string> = {
    magic: craft({ ...good, magic: "SSHSIH" }),
    "version 0": craft({ ...good, version: 0 }),
    "version 2": craft({ ...good, version: 2 }),
    namespace: craft({ ...good, namespace: "pair@pocket-agent" }),
    "namespace with a suffix": craft({ ...good, namespace: `${namespace}\0` }),
    message: craft({ ...good, message: message.toUpperCase() }),
    "embedded key": craft({ ...good, keyBlob: other.blob }),
    signer: craft({ ...good, signer: (signed) => signWith(other, signed) }),
    "hash sha1": craft({ ...good, hash: "sha1" }),
    "hash sha384": craft({ ...good, hash: "sha384" }),
    "reserved field that was not signed": craft({ ...good, shownReserved: "x" }),
    "bytes behind the blob": craft({ ...good, tail: "x" }),
    "bytes behind the signature": craft({
      ...good,
      signer: (signed) => Buffer.concat([signWith(key, signed), Buffer.from("x")]),
    }),
    "algorithm of another key": craft({
      ...good,
      signer: (signed) => relabel(signWith(key, signed), "ecdsa-sha2-nistp256"),
    }),
    "algorithm that every object has": craft({
      ...good,
      signer: (signed) => relabel(signWith(key, signed), "constructor"),
    }),
    "short signature": craft({
      ...good,
      signer: () => Buffer.concat([sshString("ssh-ed25519"), sshString(Buffer.alloc(63))]),
    }),
    "empty signature": craft({ ...good, signer: () => Buffer.alloc(0) }),
    "no armor": dearmor(craft(good)).toString("base64"),
    "two armors": craft(good).repeat(2),
    "text before the armor": `x\n${craft(good)}`,
    "other padding": craft(good).replace("\n-----END", "=\n-----END"),
    "too long": craft({ ...good, reserved: "x".repeat(10_000) }),
    nothing: "",
  };
  for (const [what, armored] of Object.entries(wrong)) {
    test(`is refused: ${what}`, () => expect(accepts(armored, key.blob)).toBe(false));
  }

  test("is refused by a key that is none, whoever lists it", () => {
    for (const keyBlob of [Buffer.alloc(0), Buffer.alloc(40), key.blob.subarray(0, -1)])
      expect(accepts(craft({ ...good, keyBlob }), keyBlob)).toBe(false);
  });
});

describe("a signature by a security key", () => {
  const application = "ssh:";
  for (const kind of ["ed25519", "p256"] as const) {
    const key = makeKey(kind, application);
    const signed = (seen: { application: string; flags: number; counter: number }) =>
      craft({ keyBlob: key.blob, message, signer: (text) => signSecurely(key, text, seen) });

    test(`is accepted when somebody touched it: ${kind}`, () => {
      for (const flags of [0x01, 0x05])
        expect(accepts(signed({ application, flags, counter: 7 }), key.blob)).toBe(true);
    });

    test(`is refused untouched, for another application, or without its counter: ${kind}`, () => {
      expect(accepts(signed({ application, flags: 0x00, counter: 7 }), key.blob)).toBe(false);
      expect(accepts(signed({ application, flags: 0x04, counter: 7 }), key.blob)).toBe(false);
      const elsewhere = { application: "ssh:other", flags: 1, counter: 7 };
      expect(accepts(signed(elsewhere), key.blob)).toBe(false);
      const short = craft({
        keyBlob: key.blob,
        message,
        signer: (text) => signSecurely(key, text, { ...elsewhere, application }).subarray(0, -1),
      });
      expect(accepts(short, key.blob)).toBe(false);
    });
  }
});

describe("parseSshKey", () => {
  const ed25519 = makeKey("ed25519").blob;
  const p256 = makeKey("p256").blob;
  const blobs: Record<string, Buffer> = {
    "cut short": ed25519.subarray(0, -1),
    "with a byte behind it": Buffer.concat([ed25519, Buffer.alloc(1)]),
    "of 31 bytes": wire("ssh-ed25519", Buffer.alloc(31)),
    "off the curve": Buffer.concat([p256.subarray(0, -32), Buffer.alloc(32, 1)]),
    "with a compressed point": wire("ecdsa-sha2-nistp256", "nistp256", Buffer.alloc(33, 2)),
    "on another curve": Buffer.from(
      p256.toString("latin1").replace("nistp256\0", "nistp384\0"),
      "latin1",
    ),
    "of a negative modulus": wire("ssh-rsa", Buffer.from([3]), Buffer.alloc(256, 0xff)),
    "with exponent 1": Buffer.concat([
      wire("ssh-rsa", Buffer.from([1])),
      mpint(Buffer.alloc(256, 0xff)),
    ]),
    "of 8200 bits": Buffer.concat([
      wire("ssh-rsa", Buffer.from([3])),
      mpint(Buffer.alloc(1025, 0xff)),
    ]),
    "of no type": Buffer.alloc(0),
    "of a type that every object has": wire("toString", Buffer.alloc(32)),
    dsa: wire("ssh-dss", Buffer.alloc(32)),
    "a certificate": wire("ssh-ed25519-cert-v01@openssh.com", Buffer.alloc(32)),
    "of 1 MiB": wire("ssh-ed25519", Buffer.alloc(1 << 20)),
  };
  for (const [what, bytes] of Object.entries(blobs)) {
    test(`refuses a key ${what}`, () => expect(() => parseSshKey(bytes)).toThrow(Malformed));
  }

  test("publicKeyBlob refuses what is no line and no blob", () => {
    const base64 = ed25519.toString("base64");
    expect(publicKeyBlob(`ssh-ed25519 ${base64} two words`)).toEqual(ed25519);
    for (const text of ["", "ssh-ed25519", `ssh-rsa ${base64}`, `${base64}!`, "A".repeat(9_000)])
      expect(publicKeyBlob(text)).toBeUndefined();
  });
});

describe("100,000 mutations of real signatures", () => {
  const random = generator(20_260_101);
  const originals = keys.map((key) => ({ key, blob: dearmor(key.sign(message)) }));
  const mutate = [flip, truncate, splice, repeat, overwrite];

  test("are refused without an exception", () => {
    for (const { key, blob: bytes } of originals)
      expect(accepts(armor(bytes), key.blob)).toBe(true);
    const accepted: string[] = [];
    for (let count = 0; count < 100_000; count += 1) {
      const { key, blob: bytes } = pick(originals);
      const mutant = pick(mutate)(bytes);
      if (mutant.equals(bytes)) continue;
      if (accepts(armor(mutant), key.blob)) accepted.push(`${key.name}: ${mutant.toString("hex")}`);
    }
    expect(accepted).toEqual([]);
  }, 120_000);

  function pick<T>(list: readonly T[]): T {
    const item = list[random(list.length)];
    if (item === undefined) throw new Error("Cannot pick from an empty list");
    return item;
  }
  function flip(bytes: Buffer): Buffer {
    const copy = Buffer.from(bytes);
    for (let count = 1 + random(3); count > 0; count -= 1) {
      const at = random(copy.length);
      copy[at] = (copy[at] ?? 0) ^ (1 << random(8));
    }
    return copy;
  }
  function truncate(bytes: Buffer): Buffer {
    return random(2) === 0
      ? bytes.subarray(0, random(bytes.length))
      : bytes.subarray(1 + random(bytes.length));
  }
  function splice(bytes: Buffer): Buffer {
    const other = pick(originals).blob;
    return Buffer.concat([
      bytes.subarray(0, random(bytes.length)),
      other.subarray(random(other.length)),
    ]);
  }
  function repeat(bytes: Buffer): Buffer {
    const at = random(bytes.length);
    return Buffer.concat([bytes.subarray(0, at), bytes.subarray(random(at + 1))]);
  }
  function overwrite(bytes: Buffer): Buffer {
    const copy = Buffer.from(bytes);
    const at = random(copy.length);
    const values = [0, 0xff, 0x80, 1] as const;
    return copy.fill(pick(values), at, Math.min(copy.length, at + 1 + random(8)));
  }
});

function wire(...fields: (string | Buffer)[]): Buffer {
  return Buffer.concat(fields.map((field) => sshString(field)));
}

function relabel(signature: Buffer, algorithm: string): Buffer {
  return Buffer.concat([sshString(algorithm), signature.subarray(4 + signature.readUInt32BE())]);
}

function rsaBlob({ n = "", e = "" }: { n?: string; e?: string }): Buffer {
  const numbers = [e, n].map((number) => mpint(Buffer.from(number, "base64url")));
  return Buffer.concat([sshString("ssh-rsa"), ...numbers]);
}

function rsaSigner(key: Parameters<typeof sign>[2], algorithm: string, hash: string) {
  return (signed: Buffer) =>
    Buffer.concat([sshString(algorithm), sshString(sign(hash, signed, key))]);
}

/** Always the same numbers, so that a failure can be looked at. */
function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}
