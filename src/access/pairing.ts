import { createHash } from "node:crypto";
import type { Scope } from "../contract/messages.ts";
import type { Clock } from "../core/ports.ts";
import {
  acknowledgementText,
  authenticate,
  type Binding,
  namespaces,
  pairingText,
  sameSecret,
} from "./challenge.ts";
import { type Device, isDeviceName } from "./devices.ts";
import { newPairingCode } from "./pairing-code.ts";
import { fingerprint, publicKeyBlob } from "./ssh-key.ts";
import { verifySshSignature } from "./ssh-signature.ts";

/** What the terminal shows before somebody there says yes. */
export interface Candidate {
  readonly name: string;
  readonly address: string;
  readonly fingerprint: string;
  /** Six digits of the device's key, which the device shows too. */
  readonly digits: string;
}

/** What a device sends to be paired, and the connection it came on. */
export interface PairingAttempt {
  readonly publicKey: string;
  readonly name: string;
  readonly signature: string;
  readonly mac: string;
  readonly address: string;
  readonly binding: Binding;
}

/** How an attempt ended. The reason is for the audit log; all refusals look the same from outside. */
export type PairingOutcome =
  | {
      readonly paired: true;
      readonly keyBlob: Buffer;
      readonly scope: Scope;
      readonly serverMac: string;
      /** Tells whoever offered the code which device it has brought, once that is recorded. */
      readonly ended: (device: Device) => void;
    }
  | { readonly paired: false; readonly reason: string };

/** Why a code brought no device. */
export type PairingEnd = "expired" | "declined" | "replaced" | "closed";

interface Terms {
  readonly scope: Scope;
  /** Asks whoever sits at the terminal; must settle, also when the terminal goes away. */
  readonly confirm: (candidate: Candidate) => Promise<boolean>;
  readonly ended: (how: Device | PairingEnd) => void;
}

interface Offer extends Terms {
  readonly code: Buffer;
  readonly timer: Disposable;
}

const lifetimeMs = 120_000;

/** Lets in one new device: whoever shows that it knows the code, and is confirmed at the terminal. */
export class Pairing {
  readonly #clock: Clock;
  #offer: Offer | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Makes a code, which replaces the one before. Whoever asked decides about the device it brings,
   * and forgets the code with `close`, for instance because its terminal went away. Wrong proofs
   * do not use it up: 128 bits are not guessed, and a stranger must not keep the owner's phone out.
   */
  open(terms: Terms): { code: Buffer; expires: Date; close: () => void } {
    const code = newPairingCode();
    const end = (why: PairingEnd) => {
      if (this.#offer?.code !== code) return;
      this.#take();
      terms.ended(why);
    };
    this.#take()?.ended("replaced");
    const timer = this.#clock.after(lifetimeMs, () => end("expired"));
    this.#offer = { ...terms, code, timer };
    const expires = new Date(this.#clock.now().getTime() + lifetimeMs);
    return { code, expires, close: () => end("closed") };
  }

  /** Whether a code waits for its device. */
  get isOpen(): boolean {
    return this.#offer !== undefined;
  }

  /**
   * Checks the proof of the code before anything else of a stranger's is looked at, then that it
   * holds its key, and asks the terminal last. The code is used up once the proofs are right.
   */
  async attempt(attempt: PairingAttempt): Promise<PairingOutcome> {
    const offer = this.#offer;
    if (!offer) return refused("no code is open");
    const { name, binding } = attempt;
    const keyBlob = publicKeyBlob(attempt.publicKey);
    if (!keyBlob || !isDeviceName(name)) return refused("the key or name is none");
    const text = pairingText(binding, { keyBlob, name });
    if (!sameSecret(authenticate(offer.code, text), attempt.mac))
      return refused("the code is wrong");
    const { signature: armored } = attempt;
    const namespace = namespaces.pairing;
    if (!verifySshSignature({ armored, keyBlob, namespace, message: text }))
      return refused("the signature is wrong");
    this.#take();
    const confirmed = await offer.confirm({
      name,
      address: attempt.address,
      fingerprint: fingerprint(keyBlob),
      digits: digitsOf(keyBlob),
    });
    if (!confirmed) {
      offer.ended("declined");
      return refused("it was declined at the terminal");
    }
    const serverMac = authenticate(offer.code, acknowledgementText(binding, { keyBlob, name }));
    return { paired: true, keyBlob, scope: offer.scope, serverMac, ended: offer.ended };
  }

  /** Whoever has the offer decides how it ends. */
  #take(): Offer | undefined {
    const offer = this.#offer;
    offer?.timer[Symbol.dispose]();
    this.#offer = undefined;
    return offer;
  }
}

/** The first four bytes of the key's SHA-256, as a number, modulo a million. */
export function digitsOf(keyBlob: Buffer): string {
  const number = createHash("sha256").update(keyBlob).digest().readUInt32BE();
  return String(number % 1_000_000).padStart(6, "0");
}

function refused(reason: string): PairingOutcome {
  return { paired: false, reason };
}
