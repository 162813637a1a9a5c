import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { scratch } from "./support/app.ts";
import { Client } from "./support/client.ts";
import { authorize, tryKey, tryPairing } from "./support/log-in.ts";
import { ServerProcess } from "./support/server-process.ts";
import { SshLab } from "./support/ssh-lab.ts";

setDefaultTimeout(60_000);

const lab = new SshLab();
afterAll(() => lab[Symbol.dispose]());
const owner = lab.key("ed25519");
const phone = lab.key("ecdsa", 256);
const main = join(import.meta.dir, "..", "src", "main.ts");
const secured = { PA_AUTH_MODE: "ssh", PA_TLS_ENABLED: "true", PA_INSECURE: "false" };
const canary = (what: string) => `canary-${what}-${crypto.randomUUID().slice(0, 8)}`;

/** Which of some secrets a text has in it. */
const leaked = (text: string, secrets: readonly string[]) =>
  secrets.filter((secret) => secret !== "" && text.includes(secret));

test("no secret is in any log, not even of the level debug", async () => {
  await using stack = new AsyncDisposableStack();
  const home = await scratch(stack);
  const data = join(home, "data");
  const said = {
    env: canary("env"),
    prompt: canary("prompt"),
    answer: canary("answer"),
    comment: canary("comment"),
    message: canary("message"),
    input: canary("input"),
    system: canary("system"),
    device: canary("device"),
    wrongToken: `pat_${canary("token").padEnd(43, "x")}`,
  };
  await mkdir(data, { mode: 0o700 });
  const [type, blob] = owner.line.split(" ");
  await authorize(data, `${type} ${blob} ${said.comment}`);
  const settings = { ...secured, PA_LOG_LEVEL: "debug", SECRET_OF_SOMEBODY: said.env };
  const server = stack.use(await ServerProcess.start({ home, settings }));
  const ca = await Bun.file(join(data, "certs", "server.crt")).text();
  const connect = async () => stack.use(await Client.connect(server.url, { ca }));

  const client = await connect();
  await client.ask("auth_token", { data: { token: said.wrongToken } });
  const { data: login } = await tryKey(client, owner);
  const token = "token" in login ? login.token : "";
  expect(token).not.toBe("");
  const sent: string[] = [];
  for (const attempt of [await connect(), await connect()]) {
    const signature = lab.key("ed25519").sign(said.message);
    sent.push(signature.split("\n")[1] ?? "");
    await attempt.ask("auth_response", { data: { public_key: owner.line, signature } });
  }
  await (await connect()).expect("auth_success", "auth_token", { data: { token } });

  const pair = Bun.spawn([process.execPath, main, "pair", "--json", "--yes"], {
    env: { PATH: process.env["PATH"], HOME: home, PA_DATA_DIR: data },
    stdout: "pipe",
  });
  const { offer } = JSON.parse(await firstLine(pair.stdout));
  const code = offer.code.replaceAll("-", "");
  const bits = [...code].map((at: string) =>
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(at).toString(2).padStart(5, "0"),
  );
  const bytes = (bits.join("").match(/.{8}/g) ?? []).map((byte) => Number.parseInt(byte, 2));
  const attempt = { key: phone, code: Buffer.from(bytes), name: said.device };
  expect(await tryPairing(await connect(), attempt)).toMatchObject({ type: "auth_success" });
  await pair.exited;

  const project_id = await client.create(join(home, "work-"), {}).catch(() => "");
  expect(project_id).toBe("");
  const path = join(home, "work");
  await mkdir(path);
  const id = await client.create(path);
  const options = { append_system_prompt: said.system };
  const prompt = `tool:Bash:${JSON.stringify({ command: said.input })}\nsay:${said.answer}`;
  await client.expect("project_state", "execute", { project_id: id, data: { prompt, options } });
  const { data: asked } = await client.next("permission_request");
  await client.expect("permission_resolved", "permission_response", {
    project_id: id,
    data: { permission_id: asked.permission_id, decision: "deny", message: said.message },
  });
  await client.settled(id);
  await client.run(id, `error:${said.prompt}`);
  client.socket.send(`{"type":"${said.prompt}"}`);
  client.socket.send(
    `{"type":"execute","project_id":"${id}","data":{"prompt":"${said.prompt}","x":1}}`,
  );
  client.socket.send(said.prompt);
  await client.ask("ping");
  await server.stop();

  const names = (await readdir(data)).filter((name) => name.startsWith("audit"));
  const audits = await Promise.all(names.map((name) => Bun.file(join(data, name)).text()));
  const logs = [server.log, ...audits].join("\n");
  expect(logs).toContain('"event":"login"');
  expect(logs).toContain('"level":"debug"');
  const challenge = client.received.flatMap((frame) =>
    frame.type === "hello" ? [frame.data.auth.challenge ?? ""] : [],
  );
  const secrets = [...Object.values(said), token, code, ...challenge, ...sent, blob ?? ""];
  expect(leaked(logs, secrets)).toEqual([]);
  // The same search finds a secret that is there.
  expect(leaked(`${logs}\n${said.prompt}`, secrets)).toEqual([said.prompt]);
});

async function firstLine(stream: ReadableStream<Uint8Array>): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of stream) {
    text += decoder.decode(chunk, { stream: true });
    if (text.includes("\n")) return text.split("\n")[0] ?? "";
  }
  return text;
}
