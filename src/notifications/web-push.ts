import { buildPushPayload } from "@block65/webcrypto-web-push";
import type { Devices } from "../access/devices.ts";
import { Fault } from "../contract/errors.ts";
import type { PushSubscription } from "../contract/messages.ts";
import { type Notification, notificationEvents } from "../contract/notifications.ts";
import type { Config } from "../contract/options.ts";
import type { Target } from "./outbox.ts";
import { type PushKey, pushKey } from "./push-key.ts";
import { isPushService } from "./push-services.ts";

/** How long a push service keeps what a device cannot be given; after a day it is no news. */
const keptSeconds = 24 * 60 * 60;

/** Devices that are notified through the push service of their browser (RFC 8030, 8291, 8292). */
export class WebPush {
  readonly #config: Config;
  readonly #devices: Devices;
  /** Whether a device may still come in. */
  readonly #admits: (deviceId: string) => boolean;
  #key: Promise<PushKey> | undefined;

  constructor(options: {
    readonly config: Config;
    readonly devices: Devices;
    readonly admits: (deviceId: string) => boolean;
  }) {
    this.#config = options.config;
    this.#devices = options.devices;
    this.#admits = options.admits;
  }

  /** The server's public key, made when somebody asks for the first time. */
  async publicKey(): Promise<string> {
    return (await this.#keys()).publicKey;
  }

  /** Resolves once it is on the disk. Rejects with a Fault that says what is wrong with it. */
  async subscribe(deviceId: string, subscription: PushSubscription): Promise<void> {
    const { endpoint, keys } = subscription;
    if (!isPushService(endpoint, this.#config.notifyPushServices ?? []))
      throw misfit(
        "endpoint",
        "it is not https, or not at a push service that is known; notify.push_services can name more",
      );
    // A point that is not on the curve cannot be encrypted for.
    if (!(await isPoint(keys.p256dh))) throw misfit("keys.p256dh", "it is not a P-256 key");
    if (!(await this.#devices.subscribe(deviceId, subscription)))
      throw new Fault("UNAUTHORIZED", "Cannot subscribe to notifications: this device was revoked");
  }

  async unsubscribe(deviceId: string): Promise<void> {
    await this.#devices.subscribe(deviceId, undefined);
  }

  /** The devices that are to be notified now. */
  subscribers(): string[] {
    return this.#devices.list().flatMap(({ id, push }) => (push && this.#admits(id) ? [id] : []));
  }

  /** One device, for as long as it is subscribed and may come in. */
  target(deviceId: string): Target {
    const current = () => (this.#admits(deviceId) ? this.#devices.get(deviceId)?.push : undefined);
    return {
      channel: "webpush",
      device: deviceId,
      compose: async (notification) => {
        const { publicKey, privateKey } = await this.#keys();
        const push = current();
        if (!push) return undefined;
        const { notifyPushContact: subject } = this.#config;
        const vapid = { subject, publicKey, privateKey };
        const subscription = { ...push, expirationTime: null };
        const { headers, body } = await buildPushPayload(
          messageOf(notification),
          subscription,
          vapid,
        );
        return { url: push.endpoint, headers, body };
      },
      gone: async ({ url }) => {
        // It may have subscribed anew meanwhile.
        if (current()?.endpoint === url) await this.unsubscribe(deviceId);
      },
    };
  }

  async #keys(): Promise<PushKey> {
    this.#key ??= pushKey(this.#config.dataDir);
    try {
      return await this.#key;
    } catch (error) {
      // The disk may have room the next time.
      this.#key = undefined;
      throw error;
    }
  }
}

function messageOf(notification: Notification) {
  const { urgent } = notificationEvents[notification.event];
  const urgency: "high" | "normal" = urgent ? "high" : "normal";
  return { data: JSON.stringify(notification), options: { ttl: keptSeconds, urgency } };
}

async function isPoint(p256dh: string): Promise<boolean> {
  const algorithm = { name: "ECDH", namedCurve: "P-256" };
  const bytes = Buffer.from(p256dh, "base64url");
  try {
    await crypto.subtle.importKey("raw", bytes, algorithm, false, []);
    return bytes[0] === 4;
  } catch {
    return false;
  }
}

function misfit(path: string, why: string): Fault {
  return new Fault("INVALID_MESSAGE", `Cannot subscribe to notifications: ${why}`, { path });
}
