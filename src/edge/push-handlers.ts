import type { Device } from "../access/devices.ts";
import { Fault } from "../contract/errors.ts";
import type { Connection } from "./connection.ts";
import type { Handlers } from "./handlers.ts";

type PushType = "push_key" | "push_subscribe" | "push_unsubscribe";

/** The messages about being notified without being connected. */
export const pushHandlers: Pick<Handlers, PushType> = {
  async push_key(_, { webPush }) {
    return { type: "push_key_response", data: { public_key: await webPush.publicKey() } };
  },

  async push_subscribe({ data }, { connection, webPush, audit }) {
    const { id } = deviceOf(connection);
    await webPush.subscribe(id, data);
    audit("push_subscribed", { service: new URL(data.endpoint).host });
    return { type: "push_subscribed", data: {} };
  },

  async push_unsubscribe(_, { connection, webPush, audit }) {
    await webPush.unsubscribe(deviceOf(connection).id);
    audit("push_unsubscribed", {});
    return { type: "push_unsubscribed", data: {} };
  },
};

/** Whom a subscription belongs to. */
function deviceOf({ login }: Connection): Device {
  if (!login)
    throw new Fault(
      "INVALID_MESSAGE",
      "Cannot subscribe to notifications: this connection belongs to no device, because nobody logs in here (auth.mode)",
    );
  const { device } = login;
  if (!device)
    throw new Fault("UNAUTHORIZED", "Cannot subscribe to notifications: this device was revoked");
  return device;
}
