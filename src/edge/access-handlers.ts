import { admitted, summary } from "../access/access.ts";
import type { Pass } from "../access/authentication.ts";
import type { Login } from "../access/login.ts";
import { Fault } from "../contract/errors.ts";
import type { HandlerContext, Handlers, Reply } from "./handlers.ts";

type AccessType = "auth_response" | "auth_token" | "auth_pair" | "device_list" | "device_revoke";

/** The messages about who may come in. */
export const accessHandlers: Pick<Handlers, AccessType> = {
  async auth_response({ data }, context) {
    const { authentication } = context.access;
    const identity = authentication.byKey(data, guest(context).visitor);
    context.clients.enter(context.connection, identity);
    return success(context, await authentication.pass(identity));
  },

  auth_token({ data }, context) {
    const { authentication } = context.access;
    const { identity, pass } = authentication.byToken(data.token, guest(context).visitor);
    context.clients.enter(context.connection, identity);
    return success(context, pass);
  },

  async auth_pair({ data }, context) {
    const { access, clients, connection } = context;
    const login = guest(context);
    const { public_key: publicKey, ...proof } = data;
    const attempt = access.authentication.byCode({ publicKey, ...proof }, login.visitor);
    const { identity, device, server_mac, replaced } = await login.outlast(attempt);
    if (replaced !== null) await context.revoke(replaced, { keepRuns: true });
    access.announce(device);
    // Somebody may have logged in while the terminal was asked.
    guest(context);
    clients.enter(connection, identity);
    return success(context, await access.authentication.pass(identity), { server_mac });
  },

  device_list(_, { access, clients }) {
    const devices = admitted(access).map((device) => summary(device, clients.has(device.id)));
    return { type: "device_list_response", data: { devices } };
  },

  async device_revoke({ data }, { access, connection, revoke }) {
    const { device_id, keep_runs: keepRuns } = data;
    if (!admitted(access).some(({ id }) => id === device_id))
      throw new Fault("INVALID_MESSAGE", "Cannot revoke the device: there is none of that id", {
        path: "device_id",
      });
    // Its own answer must still reach a device that shuts itself out.
    const itself = connection.actor?.id === device_id;
    await revoke(device_id, { keepRuns, ...(itself && { spare: connection }) });
    const reply = { type: "device_revoked", data: { device_id } } as const;
    return itself ? { ...reply, closes: 4403 } : reply;
  },
};

/** Who has not logged in yet, and may. */
function guest({ connection: { login } }: HandlerContext): Login {
  if (!login)
    throw new Fault("INVALID_MESSAGE", "Cannot log in: this server asks nobody to (auth.mode)");
  if (login.done)
    throw new Fault("INVALID_MESSAGE", "Cannot log in: this connection has done so already");
  return login;
}

function success(
  { access, connection }: HandlerContext,
  pass: Pass,
  proof: { server_mac?: string } = {},
): Reply {
  const device = connection.login?.device;
  // It may have been shut out while its token was being saved.
  if (!device) throw new Fault("UNAUTHORIZED", "Cannot log in: this device was revoked");
  const { id, name, scope } = device;
  access.devices.seen(id, connection.address);
  return { type: "auth_success", data: { device: { id, name, scope }, ...pass, ...proof } };
}
