import type { Clock } from "../core/ports.ts";
import { machineAddresses, machineNames } from "./machine-names.ts";

/** How long the machine's names and addresses are taken for unchanged. */
const refreshMs = 30_000;

export interface AdmissionRules {
  /** The scheme that clients see, and with it the port that a Host without one means. */
  readonly scheme: "http" | "https";
  readonly port: () => number;
  /** The address that the server was told to listen on. */
  readonly host: string;
  readonly allowedHosts: readonly string[];
  readonly allowedOrigins: readonly string[];
  readonly trustedProxies: readonly string[];
  readonly clock: Clock;
}

/**
 * Decides what may reach this server at all, before anything is read of it: a page on another
 * origin, or a name that was rebound to this machine, must not.
 */
export class Admission {
  readonly #rules: AdmissionRules;
  /** Names with ports that somebody allowed by hand: a proxy's, for one. */
  readonly #allowed: ReadonlySet<string>;
  #names: ReadonlySet<string> = new Set();
  #readAt = Number.NEGATIVE_INFINITY;

  constructor(rules: AdmissionRules) {
    this.#rules = rules;
    this.#allowed = new Set(
      rules.allowedHosts.map((name) =>
        /:\d+$/.test(name)
          ? name.toLowerCase()
          : `${name.toLowerCase()}:${defaultPort(rules.scheme)}`,
      ),
    );
  }

  /** The refusal of a request, on any route; undefined lets it in. Never throws. */
  refusal(request: Request): Response | undefined {
    const host = request.headers.get("host");
    if (host === null || !this.#isOurs(host))
      return refuse(421, "Cannot serve this host: the server is not known by that name");
    const origin = request.headers.get("origin");
    if (origin !== null && !this.#isWelcome(origin))
      return refuse(403, "Cannot serve this origin: it is neither the server's own nor allowed");
    return undefined;
  }

  /** The client's address: what a trusted proxy says, or who connected. */
  address(request: Request, peer: string): string {
    const { trustedProxies } = this.#rules;
    const forwarded = request.headers.get("x-forwarded-for")?.split(",") ?? [];
    let address = normalise(peer);
    while (trustedProxies.includes(address) && forwarded.length > 0)
      address = normalise(forwarded.pop()?.trim() ?? address);
    return address;
  }

  /** Read from the header: Bun fills `request.url` with nonsense for a bad one. */
  #isOurs(header: string): boolean {
    const [, name = "", port] =
      /^(\[[0-9a-f:.%]+\]|[^:[\]@/\s,]+)(?::(\d{1,5}))?$/i.exec(header) ?? [];
    const given = port === undefined ? defaultPort(this.#rules.scheme) : Number(port);
    const lower = name.toLowerCase();
    if (this.#allowed.has(`${lower}:${given}`)) return true;
    return given === this.#rules.port() && this.#current().has(lower);
  }

  #isWelcome(origin: string): boolean {
    const { scheme, allowedOrigins } = this.#rules;
    if (allowedOrigins.includes(origin)) return true;
    const prefix = `${scheme}://`;
    return origin.startsWith(prefix) && this.#isOurs(origin.slice(prefix.length));
  }

  #current(): ReadonlySet<string> {
    const now = this.#rules.clock.monotonic();
    if (now - this.#readAt < refreshMs) return this.#names;
    this.#readAt = now;
    const { host } = this.#rules;
    const wildcard = host === "0.0.0.0" || host === "::";
    this.#names = new Set(
      [...machineNames(), ...machineAddresses(), ...(wildcard ? [] : [host])].map((name) =>
        name.includes(":") ? `[${name.toLowerCase()}]` : name.toLowerCase(),
      ),
    );
    return this.#names;
  }
}

/** IPv4 in IPv6's clothes is IPv4. */
function normalise(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.\d+\.\d+\.\d+$)/i, "");
}

const defaultPort = (scheme: "http" | "https"): number => (scheme === "https" ? 443 : 80);

function refuse(status: 403 | 421, message: string): Response {
  const headers = { "x-content-type-options": "nosniff", "cache-control": "no-store" };
  return Response.json({ error: { code: "FORBIDDEN", message } }, { status, headers });
}
