import { isIPv4 } from "node:net";
import type { Config } from "../contract/options.ts";
import { machineAddresses, machineNames } from "./machine-names.ts";
import { pairingUrl, typedCode } from "./pairing-code.ts";

/** What a terminal shows so that a device can be paired. */
export interface PairingOffer {
  /** As it is typed: base32 in groups. */
  readonly code: string;
  /** What a QR code opens, most likely to be reached first. */
  readonly urls: readonly string[];
  /** Of the server's key, which the device may compare. */
  readonly fingerprint: string;
  readonly expires_at: string;
}

/** Describes a code with the places at which a server that listens on `port` can be reached. */
export function pairingOffer(
  { host, tlsEnabled: secure }: Config,
  server: { port: number; fingerprint: string },
  { code, expires }: { code: Buffer; expires: Date },
): PairingOffer {
  const outward = machineAddresses().filter((ip) => isIPv4(ip) && !ip.startsWith("127."));
  const everywhere = host === "0.0.0.0" || host === "::";
  const hosts = everywhere ? [...outward, ...machineNames()] : [host];
  return {
    code: typedCode(code),
    urls: hosts.map((name) => pairingUrl({ host: name, secure, code, ...server })),
    fingerprint: server.fingerprint,
    expires_at: expires.toISOString(),
  };
}
