import {
  acknowledgementText,
  authenticate,
  loginText,
  pairingText,
} from "../../src/access/challenge.ts";
import { join } from "node:path";
import { appendFile } from "node:fs/promises";
import type { Client, Frame } from "./client.ts";
import type { LabKey } from "./ssh-lab.ts";

/** What ties a signature to this connection, as its client sees it. */
export function bindingOf(client: Client) {
  const hello = client.received.find((frame) => frame.type === "hello");
  if (!hello) throw new Error("The server has not said hello");
  const { auth, server } = hello.data;
  const audience = new URL(client.socket.url).host;
  return { audience, server: server.id, challenge: auth.challenge ?? "" };
}

/** Asks to be let in by a key, and gives whatever the server answers. */
export async function tryKey(client: Client, key: LabKey): Promise<Frame> {
  const signature = key.sign(loginText(bindingOf(client)));
  return await client.ask("auth_response", { data: { public_key: key.line, signature } });
}

/** Lets a key in, as somebody with an editor would. */
export async function authorize(dataDir: string, ...lines: string[]): Promise<void> {
  const text = lines.map((line) => `${line}\n`).join("");
  await appendFile(join(dataDir, "authorized_keys"), text, { mode: 0o600 });
}

/** Asks to be paired with the code that a terminal has shown. */
export async function tryPairing(
  client: Client,
  { key, code, name }: { key: LabKey; code: Buffer; name: string },
): Promise<Frame> {
  const device = { keyBlob: key.blob, name };
  const text = pairingText(bindingOf(client), device);
  const signature = key.sign(text, { namespace: "pair@pocket-agent" });
  const mac = authenticate(code, text);
  return await client.ask("auth_pair", { data: { public_key: key.line, name, signature, mac } });
}

/** What a server answers a pairing with, which only one can that knows the code. */
export function expectedMac(
  client: Client,
  { key, code, name }: { key: LabKey; code: Buffer; name: string },
): string {
  const text = acknowledgementText(bindingOf(client), { keyBlob: key.blob, name });
  return authenticate(code, text);
}
