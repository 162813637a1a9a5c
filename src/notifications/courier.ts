import type { Notification } from "../contract/notifications.ts";
import type { Config } from "../contract/options.ts";
import type { Clock, Notifications, Telemetry } from "../core/ports.ts";
import { ntfy } from "./ntfy.ts";
import { Outbox, type OutboxDeps } from "./outbox.ts";
import type { WebPush } from "./web-push.ts";
import { webhook } from "./webhook.ts";

/** What is on its way gets so long to leave when the server stops. */
const farewellMs = 2_000;

/**
 * Brings notifications to everybody who is to get them, each for itself: a place that does not
 * answer keeps nobody else waiting. What is not delivered when the server stops is never sent.
 */
export class Courier implements Notifications, AsyncDisposable {
  readonly #webPush: WebPush;
  readonly #deps: OutboxDeps;
  /** The places of the configuration, which get everything. */
  readonly #fixed: readonly Outbox[];
  /** By device. */
  readonly #devices = new Map<string, Outbox>();

  constructor(parts: {
    readonly config: Config;
    readonly webPush: WebPush;
    readonly clock: Clock;
    readonly telemetry: Telemetry;
  }) {
    const { config, webPush, clock, telemetry } = parts;
    this.#webPush = webPush;
    this.#deps = { timeoutMs: config.notifyTimeout, clock, telemetry };
    const { notifyWebhook, notifyNtfy } = config;
    const targets = [
      ...(notifyWebhook === null ? [] : [webhook(notifyWebhook)]),
      ...(notifyNtfy === null ? [] : [ntfy(notifyNtfy, config)]),
    ];
    this.#fixed = targets.map((target) => new Outbox(target, this.#deps));
  }

  send(notification: Notification): void {
    try {
      for (const outbox of [...this.#fixed, ...this.#subscribed()]) outbox.put(notification);
    } catch (error) {
      // A run must not notice.
      this.#deps.telemetry.log("error", "cannot notify anybody", { error });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const all = [...this.#fixed, ...this.#devices.values()];
    for (const outbox of all) outbox.close();
    const settled = Promise.all(all.map((outbox) => outbox.settled()));
    const { promise: late, resolve } = Promise.withResolvers<void>();
    using timers = new DisposableStack();
    timers.use(this.#deps.clock.after(farewellMs, resolve));
    await Promise.race([settled, late]);
    for (const outbox of all) outbox.abort();
    await settled;
  }

  /** The outboxes of the devices that are subscribed now. */
  #subscribed(): Outbox[] {
    const ids = this.#webPush.subscribers();
    for (const [id, { idle }] of this.#devices)
      if (idle && !ids.includes(id)) this.#devices.delete(id);
    return ids.map((id) => {
      const outbox = this.#devices.get(id) ?? new Outbox(this.#webPush.target(id), this.#deps);
      this.#devices.set(id, outbox);
      return outbox;
    });
  }
}
