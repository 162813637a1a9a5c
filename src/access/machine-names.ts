import { hostname, networkInterfaces } from "node:os";

/** The names this machine goes by, lower case: its host name, that with `.local`, and localhost. */
export function machineNames(): string[] {
  const full = hostname().toLowerCase();
  const [short = full] = full.split(".");
  return [...new Set(["localhost", full, short, `${short}.local`])];
}

/** The addresses of this machine, loopback included, without the scope of link-local ones. */
export function machineAddresses(): string[] {
  const addresses = Object.values(networkInterfaces()).flatMap((entries) =>
    (entries ?? []).map(({ address }) => address.split("%")[0] ?? address),
  );
  return [...new Set(["127.0.0.1", "::1", ...addresses])];
}
