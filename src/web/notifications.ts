import { signal } from "@preact/signals";
import type { Link } from "./link.ts";

/** Whether this device is told when somebody is needed, or why it cannot be. */
export type Told = "on" | "off" | "blocked" | "impossible";

/** The taps on the shoulder of this device: Web Push, through the browser's own service. */
export class Notifications {
  readonly told = signal<Told>("impossible");
  readonly #link: Link;

  constructor(link: Link) {
    this.#link = link;
  }

  /**
   * Installs what receives them. A browser refuses that behind a certificate that is not trusted, or
   * without TLS; the page works all the same.
   */
  async install(): Promise<void> {
    const registration = await navigator.serviceWorker?.register("/sw.js").catch(() => undefined);
    if (!registration || !("PushManager" in window)) return;
    if (Notification.permission === "denied") this.told.value = "blocked";
    else this.told.value = (await registration.pushManager.getSubscription()) ? "on" : "off";
  }

  /** Asks the person, the browser's service and the server, in this order. */
  async turnOn(): Promise<void> {
    if ((await Notification.requestPermission()) !== "granted") {
      this.told.value = "blocked";
      return;
    }
    const { public_key: applicationServerKey } = await this.#link.request("push_key");
    const { pushManager } = await navigator.serviceWorker.ready;
    const options = { userVisibleOnly: true, applicationServerKey };
    // A subscription for another server's key would be refused.
    await (await pushManager.getSubscription())?.unsubscribe();
    const subscription = await pushManager.subscribe(options);
    const { endpoint = "", keys } = subscription.toJSON();
    const data = { endpoint, keys: { p256dh: keys?.["p256dh"] ?? "", auth: keys?.["auth"] ?? "" } };
    try {
      await this.#link.request("push_subscribe", { data });
    } catch (cause) {
      await subscription.unsubscribe();
      throw cause;
    }
    this.told.value = "on";
  }

  async turnOff(): Promise<void> {
    await this.#link.request("push_unsubscribe");
    const { pushManager } = await navigator.serviceWorker.ready;
    await (await pushManager.getSubscription())?.unsubscribe();
    this.told.value = "off";
  }
}
