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
import { isDeviceName } from "./devices.ts";
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
  | { readonly paired: true; readonly keyBlob: Buffer; readonly scope: Scope; serverMac: string }
  | { readonly paired: false; readonly reason: string };

interface Offer {
  readonly code: Buffer;
  readonly scope: Scope;
  readonly confirm: (candidate: Candidate) => Promise<boolean>;
  readonly until: number;
  failures: number;
}

const lifetimeMs = 120_000;
const maxFailures = 5;

/** Lets in one new device: whoever shows that it knows the code, and is confirmed at the terminal. */
export class Pairing {
  readonly #clock: Clock;
  #offer: Offer | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Makes a code, which replaces the one before. Whoever asked decides about the device it brings. */
  open(terms: Pick<Offer, "scope" | "confirm">): { code: Buffer; expires: Date } {
    const code = newPairingCode();
    this.#offer = { ...terms, code, until: this.#clock.monotonic() + lifetimeMs, failures: 0 };
    return { code, expires: new Date(this.#clock.now().getTime() + lifetimeMs) };
  }

  /** Forgets the code, for instance because the terminal that showed it went away. */
  close(): void {
    this.#offer = undefined;
  }

  /** Whether a code waits for its device. */
  get isOpen(): boolean {
    return this.#current() !== undefined;
  }

  /**
   * Checks the proof of the code before anything else of a stranger's is looked at, then that it
   * holds its key, and asks the terminal last. The code is used up once the proofs are right.
   */
  async attempt(attempt: PairingAttempt): Promise<PairingOutcome> {
    const offer = this.#current();
    if (!offer) return refused("no code is open");
    const { name, binding } = attempt;
    const keyBlob = publicKeyBlob(attempt.publicKey);
    if (!keyBlob || !isDeviceName(name)) return this.#failed(offer, "the key or name is none");
    const text = pairingText(binding, { keyBlob, name });
    if (!sameSecret(authenticate(offer.code, text), attempt.mac))
      return this.#failed(offer, "the code is wrong");
    const { signature: armored } = attempt;
    const namespace = namespaces.pairing;
    if (!verifySshSignature({ armored, keyBlob, namespace, message: text }))
      return this.#failed(offer, "the signature is wrong");
    this.close();
    const confirmed = await offer.confirm({
      name,
      address: attempt.address,
      fingerprint: fingerprint(keyBlob),
      digits: digitsOf(keyBlob),
    });
    if (!confirmed) return refused("it was declined at the terminal");
    const serverMac = authenticate(offer.code, acknowledgementText(binding, { keyBlob, name }));
    return { paired: true, keyBlob, scope: offer.scope, serverMac };
  }

  #current(): Offer | undefined {
    if (this.#offer && this.#clock.monotonic() >= this.#offer.until) this.close();
    return this.#offer;
  }

  #failed(offer: Offer, reason: string): PairingOutcome {
    offer.failures += 1;
    if (offer.failures >= maxFailures) this.close();
    return refused(reason);
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
