import { join } from "node:path";
import { serverId } from "../adapters/server-key.ts";
import type { DeviceSummary } from "../contract/messages.ts";
import type { Config } from "../contract/options.ts";
import type { Clock, Telemetry } from "../core/ports.ts";
import { AuditLog } from "./audit.ts";
import { Authentication } from "./authentication.ts";
import type { AuthorizedKey } from "./authorized-key.ts";
import { AuthorizedKeys } from "./authorized-keys.ts";
import { type Certificate, configuredCertificate, ownCertificate } from "./certificate.ts";
import { type Device, Devices } from "./devices.ts";
import { Pairing } from "./pairing.ts";
import { Throttle } from "./throttle.ts";
import { Tokens } from "./tokens.ts";

/** Who may come in, and how that is found out. */
export interface Access extends AsyncDisposable {
  readonly audit: AuditLog;
  readonly devices: Devices;
  readonly tokens: Tokens;
  readonly keys: AuthorizedKeys;
  /** The file that `keys import` adds to. */
  readonly keysFile: string;
  readonly pairing: Pairing;
  readonly authentication: Authentication;
  /** What the server shows to clients; undefined while TLS is off. */
  readonly certificate: Certificate | undefined;
  /** The fingerprint of the server's key, which clients pin. */
  readonly serverId: string;
  /** Tells whoever is there and may know that somebody new may come in. */
  readonly announce: (device: Device) => void;
}

/** Reads everything that decides who may come in. Throws a sentence about what cannot be used. */
export async function openAccess(
  config: Config,
  around: { clock: Clock; log: Telemetry["log"]; announce: Access["announce"] },
): Promise<Access> {
  const { dataDir } = config;
  const { clock, log, announce } = around;
  await using opening = new AsyncDisposableStack();
  const base = { dataDir, clock, log };
  const certsDir = join(dataDir, "certs");
  const ownId = serverId(certsDir);
  const certificate = await certificateOf(config, certsDir, clock.now());
  const audit = opening.use(new AuditLog({ ...base, maxBytes: config.logRotationSize }));
  const devices = opening.use(new Devices(base));
  const tokens = opening.use(new Tokens(base));
  const keysFile = join(dataDir, "authorized_keys");
  const further = (config.authorizedKeys ?? []).map((path) => ({ path, required: true }));
  const files = [{ path: keysFile, required: false }, ...further];
  const added = (key: AuthorizedKey, path: string) => {
    const device = devices.ofKey(key);
    if (!device) return;
    audit.record("key_added", { device: device.id, path });
    announce(device);
  };
  const keys = new AuthorizedKeys({ files, clock, log, added });
  const pairing = new Pairing(clock);
  const throttle = new Throttle(clock);
  const parts = { devices, tokens, keys, pairing, audit, throttle, clock, log };
  const authentication = new Authentication(parts);
  const open = opening.move();
  return {
    ...parts,
    keysFile,
    authentication,
    certificate,
    serverId: certificate?.fingerprint ?? ownId,
    announce,
    [Symbol.asyncDispose]: () => open.disposeAsync(),
  };
}

/** A device as clients see it. */
export function summary(device: Device, connected: boolean): DeviceSummary {
  const { key: _key, push: _push, ...rest } = device;
  return { ...rest, connected };
}

/** The devices that may come in, keys that never did among them, oldest first. */
export function admitted({ authentication, devices, keys }: Access): Device[] {
  for (const key of keys.all()) devices.ofKey(key);
  return devices.list().filter(({ id }) => authentication.admits(id));
}

async function certificateOf(config: Config, certsDir: string, now: Date) {
  const { tlsEnabled, tlsCert, tlsKey } = config;
  if (!tlsEnabled) return undefined;
  if (tlsCert !== null || tlsKey !== null)
    return configuredCertificate({ cert: tlsCert ?? undefined, key: tlsKey ?? undefined });
  return await ownCertificate({ certsDir, now });
}
