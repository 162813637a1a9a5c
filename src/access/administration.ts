import { join } from "node:path";
import * as v from "valibot";
import { Fault } from "../contract/errors.ts";
import { type DeviceSummary, scopes } from "../contract/messages.ts";
import type { Config } from "../contract/options.ts";
import type { Clock } from "../core/ports.ts";
import { type Access, admitted, summary } from "./access.ts";
import { type AuthorizedKey, parseAuthorizedKeys } from "./authorized-key.ts";
import { ownCertificate } from "./certificate.ts";
import { isDeviceName } from "./devices.ts";
import { readOwned } from "./owned-file.ts";
import { replaceFile } from "./state-file.ts";

export interface KeySummary {
  readonly fingerprint: string;
  readonly type: string;
  readonly comment: string;
  readonly file: string;
  /** Whether the line says from where the key may come. */
  readonly restricted: boolean;
  /** ISO 8601. */
  readonly expires: string | null;
  readonly revoked: boolean;
}

export interface CertificateSummary {
  readonly fingerprint: string;
  /** Null while TLS is off: then there is only the key. */
  readonly certificate: { names: readonly string[]; expires: string; file: string } | null;
  /** Whether the server made it, and renews it. */
  readonly own: boolean;
}

export interface AdministrationParts {
  readonly config: Config;
  readonly clock: Clock;
  readonly access: Access;
  readonly revoke: (deviceId: string, how: { keepRuns: boolean }) => Promise<void>;
  readonly connected: (deviceId: string) => boolean;
}

const name = v.pipe(v.string(), v.check(isDeviceName, "Expected a name of 1 to 64 characters"));
const device = v.pipe(v.string(), v.nonEmpty());
const nothing = v.strictObject({});

/** What may be asked of the administration, and with which arguments. */
export const operations = {
  "devices.list": nothing,
  "devices.rename": v.strictObject({ device, name }),
  "devices.revoke": v.strictObject({ device, keepRuns: v.boolean() }),
  "tokens.issue": v.strictObject({ name, scope: v.picklist(scopes) }),
  "keys.list": nothing,
  "keys.import": v.strictObject({ text: v.string() }),
  "keys.remove": v.strictObject({ fingerprint: v.pipe(v.string(), v.nonEmpty()) }),
  "certs.show": nothing,
  "certs.renew": nothing,
} as const;
type Operation = keyof typeof operations;
type Input<O extends Operation> = v.InferOutput<(typeof operations)[O]>;

/** What is answered. */
export interface Results {
  "devices.list": { devices: DeviceSummary[] };
  "devices.rename": { device: DeviceSummary };
  "devices.revoke": { device: DeviceSummary };
  "tokens.issue": { device: DeviceSummary; token: string; expires_at: string };
  "keys.list": { keys: KeySummary[] };
  "keys.import": { added: KeySummary[]; known: KeySummary[] };
  "keys.remove": { key: KeySummary; left: string[] };
  "certs.show": CertificateSummary;
  "certs.renew": CertificateSummary;
}

type Handlers = {
  [O in Operation]: (
    input: Input<O>,
    parts: AdministrationParts,
  ) => Results[O] | Promise<Results[O]>;
};

/** How each is done. */
export const handlers: Handlers = {
  "devices.list"(_, parts) {
    return { devices: admitted(parts.access).map((it) => summary(it, parts.connected(it.id))) };
  },

  async "devices.rename"({ device: text, name: to }, parts) {
    const { id } = find(text, parts);
    const { devices, audit } = parts.access;
    await devices.rename(id, to);
    audit.record("device_renamed", { renamed: id });
    return { device: find(id, parts) };
  },

  async "devices.revoke"({ device: text, keepRuns }, parts) {
    const found = find(text, parts);
    await parts.revoke(found.id, { keepRuns });
    return { device: { ...found, connected: false } };
  },

  async "tokens.issue"({ name: called, scope }, { access }) {
    const { devices, tokens, audit, announce } = access;
    const added = await devices.add({ name: called, scope, key: null, kind: "token" });
    const issued = await tokens.issue(added.id, null);
    audit.record("token_issued", { issued_to: added.id, scope });
    announce(added);
    return { device: summary(added, false), ...issued };
  },

  "keys.list"(_, { access }) {
    return { keys: access.keys.lines().map((line) => describe(line, access)) };
  },

  async "keys.import"({ text }, { access }) {
    const { keys, refused } = parseAuthorizedKeys(text);
    const [bad] = refused;
    if (bad) throw refuse(`Cannot import line ${bad.line}: ${bad.reason}`);
    if (keys.length === 0) throw refuse("Cannot import the keys: there are none");
    const { keysFile: path, devices } = access;
    const present = new Set(access.keys.lines().map(({ key }) => key.fingerprint));
    const added = keys.filter(({ fingerprint }) => !present.has(fingerprint));
    const lines = linesOf(text).filter((line) => added.some((key) => isOf(line, key)));
    if (lines.length > 0)
      await replaceFile(path, [...linesOf(readKeys(path)), ...lines, ""].join("\n"));
    await Promise.all(keys.map(({ fingerprint }) => devices.readmit(fingerprint)));
    access.keys.refresh({ atOnce: true });
    const listed = keys.map((key) => describe({ path, key }, access));
    return {
      added: listed.filter(({ fingerprint }) => !present.has(fingerprint)),
      known: listed.filter(({ fingerprint }) => present.has(fingerprint)),
    };
  },

  async "keys.remove"({ fingerprint }, { access, revoke }) {
    const found = access.keys.lines().filter(({ key }) => begins(key.fingerprint, fingerprint));
    const [first] = found;
    if (!first || found.some(({ key }) => key.fingerprint !== first.key.fingerprint))
      throw refuse(
        `Cannot remove the key: ${first ? "several begin" : "none begins"} with "${fingerprint}"`,
      );
    const { keysFile: path } = access;
    const key = describe(first, access);
    // Shut out first: if the file cannot be written, it is out all the same.
    await revoke(key.fingerprint, { keepRuns: false });
    const kept = linesOf(readKeys(path)).filter((line) => !isOf(line, first.key));
    await replaceFile(path, [...kept, ""].join("\n"));
    access.keys.refresh({ atOnce: true });
    access.audit.record("key_removed", { key: key.fingerprint });
    return { key, left: found.map((line) => line.path).filter((file) => file !== path) };
  },

  "certs.show"(_, { access, config }) {
    return shown(access, config);
  },

  async "certs.renew"(_, { access, config, clock }) {
    if (config.tlsCert !== null)
      throw refuse(
        `Cannot renew the certificate: "${config.tlsCert}" is configured, and renewed by whoever made it`,
      );
    const certsDir = join(config.dataDir, "certs");
    const certificate = await ownCertificate({ certsDir, now: clock.now(), renew: true });
    return shown({ ...access, certificate }, config);
  },
};

/** A device by its id, by the beginning of it, or by its name, if there is only one. */
function find(text: string, { access, connected }: AdministrationParts): DeviceSummary {
  const all = admitted(access);
  const exact = all.find(({ id }) => id === text);
  if (exact) return summary(exact, connected(exact.id));
  const named = all.filter(({ name: called }) => called === text);
  const begun = all.filter(({ id }) => begins(id, text));
  const matches = named.length > 0 ? named : begun;
  const [found] = matches;
  if (!found) throw refuse(`Cannot find the device: none is called "${text}", or begins with it`);
  if (matches.length > 1) throw refuse(`Cannot tell the device: several are "${text}"; use the id`);
  return summary(found, connected(found.id));
}

function describe(
  { path, key }: { path: string; key: AuthorizedKey },
  { devices }: Access,
): KeySummary {
  const { expires, from } = key.options;
  return {
    fingerprint: key.fingerprint,
    type: key.type,
    comment: key.comment,
    file: path,
    restricted: from !== undefined,
    expires: expires === undefined ? null : new Date(expires).toISOString(),
    revoked: devices.isDenied(key.fingerprint),
  };
}

function shown({ certificate, serverId }: Access, config: Config): CertificateSummary {
  const file = config.tlsCert ?? join(config.dataDir, "certs", "server.crt");
  return {
    fingerprint: serverId,
    certificate: certificate
      ? { names: certificate.names, expires: certificate.expires.toISOString(), file }
      : null,
    own: config.tlsCert === null,
  };
}

const readKeys = (path: string): string => readOwned(path)?.toString() ?? "";
/** Whether an id begins with a text that says more than how it was made. */
const begins = (id: string, text: string): boolean =>
  short(text) !== "" && short(id).startsWith(short(text));
const short = (text: string): string => text.replace("SHA256:", "");
const refuse = (message: string): Fault => new Fault("INVALID_MESSAGE", message);

function linesOf(text: string): string[] {
  return text.split(/\r?\n/).filter((line) => line.trim() !== "");
}

/** Whether a line of a file lets this key in. */
function isOf(line: string, key: AuthorizedKey): boolean {
  return parseAuthorizedKeys(line).keys.some(({ fingerprint }) => fingerprint === key.fingerprint);
}
