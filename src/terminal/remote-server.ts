import { createHash, X509Certificate } from "node:crypto";
import { connect } from "node:tls";
import type { ServerData } from "../contract/messages.ts";
import { findIdentity, type Identity } from "./identity.ts";
import type { KnownServers } from "./known-servers.ts";
import { type Door, opened, type Proof, Unreachable } from "./wire.ts";

export interface RemoteOptions {
  /** Of its WebSocket. */
  readonly url: URL;
  /** The file of an SSH key. */
  readonly identity: string | undefined;
  /** What the server's key must be. */
  readonly fingerprint: string | undefined;
  /** Used instead of a key. */
  readonly token: string | undefined;
  readonly home: string;
  readonly known: KnownServers;
  /** Asks whoever sits there; undefined where nobody does. */
  readonly confirm: ((question: string) => Promise<boolean>) | undefined;
}

/** How long a server may take to show its certificate. */
const handshakeMs = 10_000;

/** A server somewhere else, whose key is measured on every connection and must be the known one. */
export function remoteServer(options: RemoteOptions): Door {
  const { url } = options;
  let shown = "";
  let identity: Promise<Identity> | undefined;
  let kept: string | undefined;
  return {
    async connect() {
      const certificate = await certificateOf(url);
      shown = fingerprintOf(certificate.raw);
      await trust(url, shown, options);
      // A second connection, on which no other certificate passes, and its key is measured again.
      const tls = {
        ca: certificate.toString(),
        allowPartialTrustChain: true,
        // Said, because NODE_TLS_REJECT_UNAUTHORIZED in the environment would turn it off.
        rejectUnauthorized: true,
        checkServerIdentity: (_: string, { raw }: { raw: Buffer }) =>
          fingerprintOf(raw) === shown ? undefined : new Error("another key"),
      };
      return await opened(new WebSocket(url, { tls }), url.host);
    },
    async *proofs(hello): AsyncGenerator<Proof> {
      if (hello.server.id !== shown)
        throw new Error(
          `Cannot log in at ${url.host}: something in between shows a key (${shown}) that is not the server's own (${hello.server.id}), so a login could be relayed`,
        );
      const token = kept ?? options.token;
      if (token !== undefined) yield { type: "auth_token", data: { token } };
      if (options.token !== undefined) return;
      identity ??= findIdentity(options.identity, options.home);
      yield await signed(await identity, url, hello);
      throw new Error(
        `Cannot log in at ${url.host}: it does not know the key ${(await identity).name}; on that machine, "keys import" lets it in`,
      );
    },
    admitted: (token) => (kept = token),
  };
}

async function signed(
  { publicKey, sign }: Identity,
  { host }: URL,
  { server, auth }: ServerData<"hello">,
): Promise<Proof> {
  // The server's id was compared with the measured one.
  const text = `pocket-agent-auth-v1\naudience=${host}\nserver=${server.id}\nchallenge=${auth.challenge}\n`;
  const signature = await sign(text, "auth@pocket-agent");
  return { type: "auth_response", data: { public_key: publicKey, signature } };
}

/** Throws unless the key that a server shows is the one that it should have. */
async function trust({ host }: URL, shown: string, options: RemoteOptions): Promise<void> {
  const { fingerprint, known, confirm } = options;
  const pinned = fingerprint ?? known.fingerprint(host);
  if (pinned === shown) return;
  if (pinned !== undefined)
    throw new Error(
      [
        `Cannot trust ${host}: THE SERVER'S KEY IS NOT THE ONE THAT IT SHOULD BE.`,
        `  it shows   ${shown}`,
        `  expected   ${pinned} (${fingerprint === undefined ? known.path : "--fingerprint"})`,
        'Somebody may be in between. If its key was really changed, compare with "certs show" on that',
        `machine and ${fingerprint === undefined ? "remove its line from that file" : "give the new one"}.`,
      ].join("\n"),
    );
  if (!confirm)
    throw new Error(
      `Cannot trust ${host}: it is not known yet, and there is no terminal to ask at; if "certs show" on that machine says the same, give --fingerprint ${shown}`,
    );
  const question = `${host} is not known yet. It shows the key\n  ${shown}\nwhich "certs show" tells on that machine. Trust it? [y/N] `;
  if (!(await confirm(question))) throw new Error(`Cannot trust ${host}: you said no`);
  known.add(host, shown);
}

/** The certificate that a server shows; nothing else is said to it. */
async function certificateOf({ hostname, port, host }: URL): Promise<X509Certificate> {
  const { promise, resolve, reject } = Promise.withResolvers<X509Certificate>();
  const name = hostname.replace(/^\[|\]$/g, "");
  const socket = connect({
    host: name,
    port: Number(port || 443),
    ...(/[a-z]/i.test(name) && !name.includes(":") && { servername: name }),
    // It is measured and compared, which is more than a name in a certificate says.
    rejectUnauthorized: false,
  });
  const give = (reason: string) => reject(new Unreachable(`Cannot connect to ${host}: ${reason}`));
  socket.setTimeout(handshakeMs, () => give("it does not answer"));
  socket.once("error", (error) => give(error.message));
  socket.once("close", () => give("it hung up"));
  socket.once("secureConnect", () => {
    const { raw } = socket.getPeerCertificate();
    if (raw) resolve(new X509Certificate(raw));
    else give("it shows no certificate");
  });
  try {
    return await promise;
  } finally {
    socket.destroy();
  }
}

/** As `certs show` prints it: the SHA-256 of the public key. */
function fingerprintOf(certificate: Buffer): string {
  const key = new X509Certificate(certificate).publicKey.export({ type: "spki", format: "der" });
  return `SHA256:${createHash("sha256").update(key).digest("base64").replace(/=+$/, "")}`;
}
