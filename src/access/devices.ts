import { randomUUID } from "node:crypto";
import { join } from "node:path";
import * as v from "valibot";
import {
  deviceKinds,
  type PushSubscription,
  pushSubscription,
  scopes,
} from "../contract/messages.ts";
import type { Clock, Telemetry } from "../core/ports.ts";
import { StateFile } from "./state-file.ts";

const nullable = v.nullable(v.string());
const device = v.object({
  id: v.string(),
  name: v.string(),
  scope: v.picklist(scopes),
  kind: v.picklist(deviceKinds),
  /** The blob of its public key in base64; null for a token's, which has none. */
  key: nullable,
  created_at: v.pipe(v.string(), v.isoTimestamp()),
  last_seen: nullable,
  address: nullable,
  /** Where it is notified. Whoever knows it can send something there. */
  push: v.optional(pushSubscription),
});
const schema = v.object({
  version: v.literal(1),
  devices: v.array(device),
  /** Fingerprints of keys that a file may still hold and that were revoked. */
  denied: v.array(v.string()),
});

/** How the owner of this machine is called, who comes through the local socket. */
export const localDevice = { id: "local", name: "local" } as const;

/** Who may come in, as this server recorded it. Roles come from here, never from a client. */
export type Device = Readonly<v.InferOutput<typeof device>>;

/** Whether a name is 1 to 64 characters that a person can see, with single spaces in between. */
export function isDeviceName(name: string): boolean {
  return /^[^\p{C}\p{Z}](?:[^\p{C}\p{Z}]| (?! |$)){0,63}$/u.test(name);
}

/** The devices of this server. What was changed holds at once; promises tell when it is saved. */
export class Devices implements AsyncDisposable {
  readonly #clock: Clock;
  readonly #file: StateFile<typeof schema>;
  readonly #devices: Map<string, Device>;
  readonly #denied: Set<string>;

  constructor(options: {
    readonly dataDir: string;
    readonly clock: Clock;
    readonly log: Telemetry["log"];
  }) {
    this.#clock = options.clock;
    this.#file = new StateFile({
      ...options,
      path: join(options.dataDir, "devices.json"),
      schema,
      content: () => ({ version: 1, devices: this.list(), denied: [...this.#denied] }),
    });
    const { devices = [], denied = [] } = this.#file.load() ?? {};
    this.#devices = new Map(devices.map((entry) => [entry.id, entry]));
    this.#denied = new Set(denied);
  }

  /** Oldest first. */
  list(): readonly Device[] {
    return [...this.#devices.values()];
  }

  get(id: string): Device | undefined {
    return this.#devices.get(id);
  }

  /** The paired device that has this key. */
  withKey(blob: Buffer): Device | undefined {
    const key = blob.toString("base64");
    return this.list().find((entry) => entry.kind === "paired" && entry.key === key);
  }

  /** Records a new device. A key belongs to one only: the device that had it is no more. */
  async add(entry: Pick<Device, "name" | "scope" | "key"> & { kind: "paired" | "token" }) {
    const { name, scope, key, kind } = entry;
    for (const { id, key: other } of this.list())
      if (key !== null && key === other) this.#devices.delete(id);
    const added = this.#record({ id: randomUUID(), name, scope, kind, key });
    await this.#file.save();
    return added;
  }

  /** The device that an authorized key is; undefined if it was revoked. */
  ofKey(key: { readonly fingerprint: string; readonly comment: string }): Device | undefined {
    const { fingerprint: id, comment } = key;
    if (this.#denied.has(id)) return undefined;
    const known = this.#devices.get(id);
    if (known) return known;
    const name = isDeviceName(comment) ? comment : id;
    const created = this.#record({ id, name, scope: "full", kind: "ssh", key: null });
    this.#file.saveLater();
    return created;
  }

  /** Whether an authorized key was revoked. */
  isDenied(keyFingerprint: string): boolean {
    return this.#denied.has(keyFingerprint);
  }

  /** Lets a revoked key in again, for whoever imports it once more. */
  async readmit(keyFingerprint: string): Promise<void> {
    if (this.#denied.delete(keyFingerprint)) await this.#file.save();
  }

  /** Resolves to false if there is no such device. The name must be one. */
  async rename(id: string, name: string): Promise<boolean> {
    const known = this.#devices.get(id);
    if (!known) return false;
    this.#devices.set(id, { ...known, name });
    await this.#file.save();
    return true;
  }

  /** Has a device notified there, or no more. Resolves to false if there is no such device. */
  async subscribe(id: string, push: PushSubscription | undefined): Promise<boolean> {
    const known = this.#devices.get(id);
    if (!known) return false;
    const { push: _, ...rest } = known;
    this.#devices.set(id, push === undefined ? rest : { ...rest, push });
    await this.#file.save();
    return true;
  }

  /**
   * Shuts a device out, and an authorized key also if it never came. Holds when this returns;
   * the promise resolves when it also holds after a power cut.
   */
  revoke(id: string): Promise<void> {
    this.#devices.delete(id);
    if (/^SHA256:[A-Za-z0-9+/]{43}$/.test(id)) this.#denied.add(id);
    return this.#file.save();
  }

  /** Notes that a device is here. */
  seen(id: string, address: string): void {
    const known = this.#devices.get(id);
    if (!known) return;
    this.#devices.set(id, { ...known, last_seen: this.#clock.now().toISOString(), address });
    this.#file.saveLater();
  }

  /** Saves what is still to be saved. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file[Symbol.asyncDispose]();
  }

  #record(entry: Pick<Device, "id" | "name" | "scope" | "kind" | "key">): Device {
    const created_at = this.#clock.now().toISOString();
    const added: Device = { ...entry, created_at, last_seen: null, address: null };
    this.#devices.set(added.id, added);
    return added;
  }
}
