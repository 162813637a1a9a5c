import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { scratch } from "./support/app.ts";
import { Client } from "./support/client.ts";
import { ServerProcess } from "./support/server-process.ts";
import { outOfOrder, readTrace, type Step } from "./support/system-calls.ts";

setDefaultTimeout(120_000);

const traced =
  "write,pwrite64,writev,pwritev,send,sendto,sendmsg,fsync,fdatasync,rename,renameat,renameat2";
const writes = ["write", "pwrite64", "writev", "pwritev"];
const sends = ["write", "writev", "send", "sendto", "sendmsg"];
const renames = ["rename", "renameat", "renameat2"];

let stack: AsyncDisposableStack;

beforeEach(() => {
  stack = new AsyncDisposableStack();
});

afterEach(() => stack.disposeAsync());

/** Runs the server under strace, lets a client do something, and gives the trace of it. */
async function trace(work: (client: Client, directory: string) => Promise<void>): Promise<string> {
  if (!Bun.which("strace"))
    throw new Error(
      "Cannot show what is on the disk before a reply: strace is not installed; on Debian: apt-get install strace",
    );
  const home = await scratch(stack);
  const output = join(home, "trace");
  const directory = join(home, "work");
  await mkdir(directory);
  const by = ["strace", "-f", "-y", "-s", "65536", "-e", `trace=${traced}`, "-o", output];
  {
    await using server = await ServerProcess.start({ home, by });
    await using client = await Client.connect(server.url);
    await work(client, directory);
  }
  return await Bun.file(output).text();
}

/** The reply to the request of this number, as it stands in an argument of a call. */
const replyTo = (request: number, type: string): Step => ({
  what: "the reply",
  names: sends,
  about: new RegExp(
    `\\\\"type\\\\":\\\\"${type}\\\\",[^{]*\\\\"request_id\\\\":\\\\"r${request}\\\\"`,
  ),
});

describe("a reply is sent only when what it says is on the disk", () => {
  test("for execute: the prompt is in the log, and the log is synced", async () => {
    const text = await trace(async (client, directory) => {
      const project_id = await client.create(directory);
      const data = { prompt: "say:the prompt of this test" };
      const reply = await client.expect("project_state", "execute", { project_id, data });
      expect(reply.request_id).toBe("r2");
      await client.settled(project_id);
    });
    const log = String.raw`<[^>]*/logs/messages_[^>]*\.jsonl>`;
    const prompt = String.raw`\\"direction\\":\\"client\\".*the prompt of this test`;
    const steps = [
      { what: "write", names: writes, about: new RegExp(`^\\d+${log}, .*${prompt}`) },
      { what: "fdatasync", names: ["fdatasync"], about: new RegExp(`^\\d+${log}`) },
      replyTo(2, "project_state"),
    ];
    expect(outOfOrder(readTrace(text), steps)).toBeUndefined();
    // The control: with the reply moved to the top, the same trace must not pass.
    expect(outOfOrder(readTrace(withReplyFirst(text, steps.at(-1))), steps)).toBe("the reply");
  });

  test("for project_create: the metadata is written, synced, renamed, and its folders synced", async () => {
    const text = await trace(async (client, directory) => {
      const reply = await client.expect("project_state", "project_create", {
        data: { path: directory },
      });
      expect(reply.request_id).toBe("r1");
    });
    const id = String.raw`/projects/[0-9a-f-]{36}`;
    const draft = String.raw`<[^>]*${id}/metadata\.json\.tmp>`;
    const steps = [
      { what: "write", names: writes, about: new RegExp(`^\\d+${draft}`) },
      { what: "fsync", names: ["fsync", "fdatasync"], about: new RegExp(`^\\d+${draft}`) },
      {
        what: "rename",
        names: renames,
        about: new RegExp(`${id}/metadata\\.json\\.tmp".*${id}/metadata\\.json"`),
      },
      { what: "fsync of its folder", names: ["fsync"], about: new RegExp(`^\\d+<[^>]*${id}>`) },
      { what: "fsync of all projects", names: ["fsync"], about: /^\d+<[^>]*\/projects>/ },
      replyTo(1, "project_state"),
    ];
    expect(outOfOrder(readTrace(text), steps)).toBeUndefined();
    expect(outOfOrder(readTrace(withReplyFirst(text, steps.at(-1))), steps)).toBe("the reply");
  });

  test("for project_delete: the folder is moved away, and that is synced", async () => {
    const text = await trace(async (client, directory) => {
      const project_id = await client.create(directory);
      await client.expect("project_deleted", "project_delete", { project_id });
    });
    const steps = [
      { what: "rename", names: renames, about: /\/projects\/[0-9a-f-]{36}".*\/trash\// },
      { what: "fsync", names: ["fsync"], about: /^\d+<[^>]*\/projects>/ },
      replyTo(2, "project_deleted"),
    ];
    expect(outOfOrder(readTrace(text), steps)).toBeUndefined();
  });
});

describe("the order of a trace", () => {
  const steps = [
    { what: "write", names: ["write"], about: /log/ },
    { what: "fdatasync", names: ["fdatasync"], about: /log/ },
    { what: "the reply", names: ["sendto"], about: /r1/ },
  ];
  const order = (lines: string[]) => outOfOrder(readTrace(lines.join("\n")), steps);

  test("is kept when each call came back before the next was made", () => {
    const lines = [
      '7 write(5<log>, "{(\\"= 3"..., 9) = 9',
      "8 fdatasync(5<log> <unfinished ...>",
      '7 sendto(9<socket:[1]>, "other", 5, 0, NULL, 0) = 5',
      "8 <... fdatasync resumed>)        = 0",
      '7 sendto(9<socket:[1]>, "r1", 2, 0, NULL, 0) = 2',
    ];
    expect(order(lines)).toBeUndefined();
  });

  test("is broken by a reply while the sync is under way, or by none at all", () => {
    const early = [
      '7 write(5<log>, "x", 1) = 1',
      "8 fdatasync(5<log> <unfinished ...>",
      '7 sendto(9<socket:[1]>, "r1", 2, 0, NULL, 0) = 2',
      "8 <... fdatasync resumed>) = 0",
    ];
    expect(order(early)).toBe("the reply");
    expect(order(early.slice(0, 2))).toBe("fdatasync");
    expect(order(early.slice(1))).toBe("write");
  });

  test("is broken by a sync that failed, was of another file, or came before the write", () => {
    const write = '7 write(5<log>, "x", 1) = 1';
    const reply = '7 sendto(9<socket:[1]>, "r1", 2, 0, NULL, 0) = 2';
    const failed = "8 fdatasync(5<log>) = -1 EIO (Input/output error)";
    expect(order([write, failed, reply])).toBe("fdatasync");
    expect(order([write, "8 fdatasync(6<other>) = 0", reply])).toBe("fdatasync");
    expect(order(["8 fdatasync(5<log>) = 0", write, reply])).toBe("fdatasync");
  });
});

/** The trace of a server that replied before it did anything. */
function withReplyFirst(text: string, reply: Step | undefined): string {
  const lines = text.split("\n");
  const at = lines.findIndex((line) => reply?.about.test(line));
  return [...lines.splice(at, 1), ...lines].join("\n");
}
