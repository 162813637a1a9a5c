import { createHash, X509Certificate } from "node:crypto";
import { join } from "node:path";
import * as v from "valibot";
import { parseAuthorizedKeys } from "../access/authorized-key.ts";
import { forbidden, readOwned } from "../access/owned-file.ts";
import { fail, type Finding, ok, type Patient, warn } from "./finding.ts";

const dayMs = 86_400_000;
const devicesFile = v.looseObject({ devices: v.array(v.unknown()) });

/** What the server shows to clients, and who may come in. */
export function checkDoors(patient: Patient): Finding[] {
  return [...checkCertificate(patient), ...checkKeys(patient), ...checkDevices(patient)];
}

function checkCertificate({ config }: Patient): Finding[] {
  const { tlsEnabled, tlsCert, dataDir } = config;
  if (!tlsEnabled)
    return [warn("certificate", "TLS is off", "Leave it on, but behind a proxy on this machine")];
  const path = tlsCert ?? join(dataDir, "certs", "server.crt");
  const remedy = tlsCert ? "Renew it where it came from" : "Restart the server, or: certs renew";
  try {
    const pem = readOwned(path);
    if (!pem)
      return tlsCert
        ? [fail("certificate", `there is no ${path}`, "Set server.tls.cert to the file")]
        : [ok("certificate", "none yet; the first start makes one")];
    const certificate = new X509Certificate(pem);
    const days = Math.floor((certificate.validToDate.getTime() - Date.now()) / dayMs);
    const until = certificate.validToDate.toISOString().slice(0, 10);
    if (days < 0) return [fail("certificate", `it ended on ${until}`, remedy)];
    if (certificate.validFromDate.getTime() > Date.now())
      return [fail("certificate", "it is not valid yet", "Look at the clock of this machine")];
    const text = `${fingerprintOf(certificate)}, good until ${until}`;
    return [days < 30 ? warn("certificate", text, remedy) : ok("certificate", text)];
  } catch (cause) {
    return [fail("certificate", reasonOf(cause), remedy)];
  }
}

function checkKeys({ config }: Patient): Finding[] {
  const files = [join(config.dataDir, "authorized_keys"), ...(config.authorizedKeys ?? [])];
  return files.flatMap((path, at) => {
    try {
      const content = readOwned(path);
      if (!content)
        return at === 0
          ? [ok("keys", "none")]
          : [fail("keys", `there is no ${path}`, "See auth.authorized_keys")];
      const { keys, refused } = parseAuthorizedKeys(content.toString());
      return [
        ok("keys", `${keys.length} in ${path}`),
        ...refused.map(({ line, reason }) =>
          warn("keys", `line ${line} of ${path} is refused: ${reason}`, "Change or remove it"),
        ),
      ];
    } catch (cause) {
      return [fail("keys", reasonOf(cause), "Give it to this account, and close it to others")];
    }
  });
}

function checkDevices({ config }: Patient): Finding[] {
  const path = join(config.dataDir, "devices.json");
  try {
    const content = readOwned(path, forbidden.reading);
    if (!content) return [warn("devices", "nobody may come in yet", "pair, or keys import")];
    const { devices } = v.parse(devicesFile, JSON.parse(content.toString()));
    return [ok("devices", String(devices.length))];
  } catch (cause) {
    return [fail("devices", `${path}: ${reasonOf(cause)}`, "Restore it from a backup")];
  }
}

function fingerprintOf({ publicKey }: X509Certificate): string {
  const spki = publicKey.export({ type: "spki", format: "der" });
  return `SHA256:${createHash("sha256").update(spki).digest("base64").replace(/=+$/, "")}`;
}

const reasonOf = (cause: unknown): string =>
  cause instanceof Error ? cause.message : String(cause);
