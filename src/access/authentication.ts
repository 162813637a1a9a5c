import { Fault } from "../contract/errors.ts";
import type { Scope } from "../contract/messages.ts";
import type { Clock, Telemetry } from "../core/ports.ts";
import type { AuditLog } from "./audit.ts";
import type { AuthorizedKeys } from "./authorized-keys.ts";
import { type Binding, loginText, namespaces } from "./challenge.ts";
import { type Device, type Devices, localDevice } from "./devices.ts";
import type { Pairing, PairingAttempt } from "./pairing.ts";
import { fingerprint, publicKeyBlob } from "./ssh-key.ts";
import { verifySshSignature } from "./ssh-signature.ts";
import type { Throttle } from "./throttle.ts";
import type { Tokens } from "./tokens.ts";

/** Where somebody comes from, and what ties a signature to this one connection. */
export interface Visitor {
  readonly address: string;
  readonly binding: Binding;
}

/** Who somebody was found to be: a device, and the fingerprint of the key it came with. */
export interface Identity {
  readonly deviceId: string;
  readonly key: string | null;
}

/** A token to come back with. */
export interface Pass {
  readonly token: string;
  readonly expires_at: string;
}

interface AuthenticationParts {
  readonly devices: Devices;
  readonly tokens: Tokens;
  readonly keys: AuthorizedKeys;
  readonly pairing: Pairing;
  readonly throttle: Throttle;
  readonly audit: AuditLog;
  readonly clock: Clock;
  readonly log: Telemetry["log"];
}

/**
 * Finds out who somebody is. Whoever is not let in is told no more than that: an unknown key, a
 * wrong signature and a wrong code all look the same.
 */
export class Authentication {
  readonly #parts: AuthenticationParts;

  constructor(parts: AuthenticationParts) {
    this.#parts = parts;
  }

  /** By a signature of an authorized or paired key. Decided when it returns; throws UNAUTHORIZED. */
  byKey(proof: { public_key: string; signature: string }, visitor: Visitor): Identity {
    const { throttle } = this.#parts;
    const { address, binding } = visitor;
    const keyBlob = publicKeyBlob(proof.public_key);
    if (!keyBlob) throw this.#refusal("the key is none", visitor);
    const key = fingerprint(keyBlob);
    const device = this.#deviceOf(keyBlob, key, address);
    if (!device) throw this.#refusal("the key is unknown", visitor, key);
    if (!throttle.mayVerify(address)) throw this.#refusal("too many attempts", visitor, key);
    const message = loginText(binding);
    const claim = { armored: proof.signature, keyBlob, namespace: namespaces.login, message };
    if (!verifySshSignature(claim)) throw this.#refusal("the signature is wrong", visitor, key);
    return this.#welcome({ deviceId: device.id, key }, visitor, "key");
  }

  /** By a token. Throws UNAUTHORIZED. */
  byToken(token: string, visitor: Pick<Visitor, "address">): { identity: Identity; pass: Pass } {
    const { address } = visitor;
    const used = this.#parts.tokens.use(token, ({ device, key }) =>
      Boolean(this.device({ deviceId: device, key }, address)),
    );
    if (!used) throw this.#refusal("the token is none, or its time is over", visitor);
    const { device: deviceId, key } = used.grant;
    return { identity: { deviceId, key }, pass: { token, expires_at: used.expires_at } };
  }

  /** What the bearer of a token may do who asks over HTTP. Throws UNAUTHORIZED. */
  bearer(token: string | undefined, address: string): Scope {
    if (token === undefined)
      throw new Fault("UNAUTHORIZED", "Cannot show that: it needs a token (Authorization: Bearer)");
    const { identity } = this.byToken(token, { address });
    const device = this.device(identity, address);
    if (!device) throw new Fault("UNAUTHORIZED", "Cannot show that: this device was revoked");
    this.#parts.devices.seen(device.id, address);
    return device.scope;
  }

  /** By the pairing code that is open, which makes a new device. Rejects with UNAUTHORIZED. */
  async byCode(
    attempt: Omit<PairingAttempt, "address" | "binding">,
    visitor: Visitor,
  ): Promise<{ identity: Identity; device: Device; server_mac: string; replaced: string | null }> {
    const { pairing, devices, throttle, audit } = this.#parts;
    const { address } = visitor;
    if (throttle.waitMs(address) > 0) throw this.#refusal("too many attempts", visitor);
    const outcome = await pairing.attempt({ ...attempt, ...visitor });
    if (!outcome.paired) throw this.#refusal(outcome.reason, visitor);
    const { keyBlob, scope, serverMac: server_mac } = outcome;
    // One key is one device: whoever pairs again is the same one, with what was granted now.
    const replaced = devices.withKey(keyBlob)?.id ?? null;
    const entry = { name: attempt.name, scope, key: keyBlob.toString("base64") };
    const device = await devices.add({ ...entry, kind: "paired" });
    outcome.ended(device);
    const identity = { deviceId: device.id, key: fingerprint(keyBlob) };
    audit.record("paired", { device: device.id, scope, address, replaced });
    return { identity: this.#welcome(identity, visitor, "pairing"), device, server_mac, replaced };
  }

  /** A token for the next time. On a full disk it lasts until the server stops: people must get in. */
  async pass({ deviceId, key }: Identity): Promise<Pass> {
    const { tokens, log } = this.#parts;
    const pass = tokens.grant(deviceId, key);
    try {
      await tokens.saved();
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      log("error", "cannot save a token", { device: deviceId, error });
    }
    return pass;
  }

  /** The device as it is now; undefined if it may not come in any more, or not from there. */
  device({ deviceId, key }: Identity, address: string): Device | undefined {
    const { devices, keys, clock } = this.#parts;
    const known = devices.get(deviceId);
    if (known?.kind === "token") return known;
    if (known?.kind === "paired") return isKeyOf(known, key) ? known : undefined;
    const authorized = key === deviceId ? keys.find(key, { address, now: clock.now() }) : undefined;
    return authorized && devices.ofKey(authorized);
  }

  /** Whether there is nobody at all who may come in. */
  get isVacant(): boolean {
    const { devices, keys } = this.#parts;
    return devices.list().length === 0 && keys.all().length === 0;
  }

  /** Whether a device is one that may come in, from wherever. */
  admits(deviceId: string): boolean {
    if (deviceId === localDevice.id) return true;
    const { devices, keys } = this.#parts;
    const known = devices.get(deviceId);
    if (known && known.kind !== "ssh") return true;
    const authorized = keys.all().some((key) => key.fingerprint === deviceId);
    return authorized && !devices.isDenied(deviceId);
  }

  /** A line of authorized_keys counts before a pairing: its owner put it there. */
  #deviceOf(keyBlob: Buffer, key: string, address: string): Device | undefined {
    const { devices, keys, clock } = this.#parts;
    const authorized = keys.find(key, { address, now: clock.now() });
    return (authorized && devices.ofKey(authorized)) ?? devices.withKey(keyBlob);
  }

  #welcome(identity: Identity, { address }: Visitor, method: string): Identity {
    this.#parts.audit.record("login", { device: identity.deviceId, address, method });
    return identity;
  }

  /**
   * Throttled or not, who failed with a known key is answered as a stranger is: else the answer
   * would tell which keys are known.
   */
  #refusal(reason: string, { address }: Pick<Visitor, "address">, key?: string): Fault {
    const { throttle, audit } = this.#parts;
    const retry_after_ms = throttle.waitMs(address);
    if (retry_after_ms > 0)
      return new Fault("RATE_LIMITED", "Cannot log in: too many attempts failed", {
        retry_after_ms,
      });
    throttle.reject(address);
    audit.record("login_failed", { address, reason, ...(key === undefined ? {} : { key }) });
    return new Fault("UNAUTHORIZED", "Cannot log in: that does not show who you are");
  }
}

function isKeyOf({ key }: Device, known: string | null): boolean {
  return key !== null && fingerprint(Buffer.from(key, "base64")) === known;
}
