import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** An SSH key that is used through OpenSSH: from a file, an agent or a security key. */
export interface Identity {
  /** How a person knows it. */
  readonly name: string;
  /** A line as `authorized_keys` has it. */
  readonly publicKey: string;
  /** Gives an armored SSHSIG. */
  readonly sign: (text: string, namespace: string) => Promise<string>;
}

/** The key in a file or, without one, the first of ssh-agent, or `~/.ssh/id_ed25519`. */
export async function findIdentity(named: string | undefined, home: string): Promise<Identity> {
  if (named !== undefined) return await fromFile(named);
  const held = await firstOfAgent();
  if (held !== undefined) return fromAgent(held);
  const usual = join(home, ".ssh", "id_ed25519");
  if (existsSync(usual)) return await fromFile(usual);
  throw new Error(
    "Cannot log in: ssh-agent has no key, and there is no ~/.ssh/id_ed25519; name one with --identity",
  );
}

async function fromFile(path: string): Promise<Identity> {
  if (!existsSync(path)) throw new Error(`Cannot log in: there is no key "${path}"`);
  const publicPath = path.endsWith(".pub") ? path : `${path}.pub`;
  const publicKey = existsSync(publicPath)
    ? readFileSync(publicPath, "utf8").trim()
    : (await ssh(["ssh-keygen", "-y", "-f", path])).trim();
  return {
    name: path,
    publicKey,
    sign: (text, namespace) => signature(path, namespace, text),
  };
}

function fromAgent(publicKey: string): Identity {
  return {
    name: publicKey.split(" ").slice(2).join(" ") || "the first key of ssh-agent",
    publicKey,
    async sign(text, namespace) {
      // ssh-keygen asks the agent for the other half of a public key's file.
      const folder = mkdtempSync(join(tmpdir(), "pocket-agent-"));
      try {
        const path = join(folder, "key.pub");
        writeFileSync(path, `${publicKey}\n`);
        return await signature(path, namespace, text);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    },
  };
}

async function firstOfAgent(): Promise<string | undefined> {
  if (!process.env["SSH_AUTH_SOCK"] || !Bun.which("ssh-add")) return undefined;
  const child = Bun.spawn(["ssh-add", "-L"], { stdin: "ignore", stdout: "pipe", stderr: "ignore" });
  const [text, code] = await Promise.all([child.stdout.text(), child.exited]);
  return code === 0 ? text.split("\n")[0] : undefined;
}

const signature = (path: string, namespace: string, text: string) =>
  ssh(["ssh-keygen", "-Y", "sign", "-q", "-n", namespace, "-f", path], text);

/** It asks for a passphrase, or for a touch, by itself. */
async function ssh(command: string[], input = ""): Promise<string> {
  if (!Bun.which("ssh-keygen"))
    throw new Error("Cannot log in: ssh-keygen is missing; install OpenSSH's client");
  const child = Bun.spawn(command, {
    stdin: Buffer.from(input),
    stdout: "pipe",
    stderr: "inherit",
  });
  const [text, code] = await Promise.all([child.stdout.text(), child.exited]);
  if (code !== 0) throw new Error(`Cannot log in: ${command[0]} could not use "${command.at(-1)}"`);
  return text;
}
