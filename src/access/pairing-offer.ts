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

/** The addresses and names under which others can reach this server, most likely first. */
export function reachableHosts({ host }: Pick<Config, "host">): string[] {
  if (host !== "0.0.0.0" && host !== "::") return [host];
  const outward = machineAddresses().filter((ip) => isIPv4(ip) && !ip.startsWith("127."));
  return [...outward, ...machineNames()];
}

/** Describes a code with the places at which a server that listens on `port` can be reached. */
export function pairingOffer(
  config: Config,
  server: { port: number; fingerprint: string },
  { code, expires }: { code: Buffer; expires: Date },
): PairingOffer {
  const { tlsEnabled: secure } = config;
  const hosts = reachableHosts(config);
  return {
    code: typedCode(code),
    urls: hosts.map((host) => pairingUrl({ host, secure, code, ...server })),
    fingerprint: server.fingerprint,
    expires_at: expires.toISOString(),
  };
}
