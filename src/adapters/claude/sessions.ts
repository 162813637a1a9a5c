import { open, readdir, realpath, stat } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import type { Session } from "../../contract/messages.ts";
import type { SessionBook } from "../../core/ports.ts";
import type { Environment } from "./environment.ts";
import { liveSessions } from "./live-sessions.ts";
import { countMessages } from "./message-count.ts";

/** Read at either end of a transcript: the titles stand there. */
const endBytes = 64 * 1024;
const titleLength = 200;
const promptLength = 500;
/** Transcripts that are looked into at the same time. */
const concurrency = 16;
/** What is known of so many transcripts is kept for as long as they do not change. */
const maxKnown = 4_000;
const sessionFile = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.jsonl$/i;

interface Transcript {
  readonly id: string;
  readonly path: string;
  readonly size: number;
  readonly mtimeMs: number;
}

type Summary = Omit<Session, "open_in_terminal"> & { readonly cwd: string };

const line = v.looseObject({
  type: v.string(),
  cwd: v.optional(v.string()),
  isSidechain: v.optional(v.boolean()),
  isMeta: v.optional(v.boolean()),
  message: v.optional(v.looseObject({ content: v.optional(v.unknown()) })),
  customTitle: v.optional(v.string()),
  aiTitle: v.optional(v.string()),
  lastPrompt: v.optional(v.string()),
});
type Line = v.InferOutput<typeof line>;

/** The CLI's own transcripts: `projects/<key>/<session>.jsonl` in its configuration folder. */
export function sessionBook(environment: Environment): SessionBook {
  const home = environment["HOME"] || homedir();
  const root = environment["CLAUDE_CONFIG_DIR"] || join(home, ".claude");
  const known = new Map<string, Summary | null>();

  const summarise = async (transcript: Transcript): Promise<Summary | null> => {
    const key = `${transcript.path} ${transcript.size} ${transcript.mtimeMs}`;
    const found = known.get(key);
    if (found !== undefined) return found;
    const summary = await read(transcript);
    known.set(key, summary);
    const [oldest] = known.keys();
    if (oldest && known.size > maxKnown) known.delete(oldest);
    return summary;
  };

  /** The newest sessions of a directory among these, at most `limit`. */
  const pick = async (directory: string, transcripts: readonly Transcript[], limit: number) => {
    const sessions: Session[] = [];
    const live = await liveSessions(root);
    for (let at = 0; at < transcripts.length && sessions.length < limit; at += concurrency) {
      // oxlint-disable-next-line no-await-in-loop -- so many at a time, until there are enough
      const some = await Promise.all(transcripts.slice(at, at + concurrency).map(summarise));
      for (const summary of some) {
        if (summary?.cwd !== directory) continue;
        const { cwd: _, ...session } = summary;
        sessions.push({ ...session, open_in_terminal: live.has(session.session_id) });
      }
    }
    return sessions.slice(0, limit);
  };

  return {
    async list(directory, limit) {
      const real = await realpath(directory);
      return await pick(real, await transcriptsOf(root, real), limit);
    },
    async find(directory, sessionId) {
      const real = await realpath(directory);
      const transcripts = await transcriptsOf(root, real);
      const [session] = await pick(
        real,
        transcripts.filter(({ id }) => id === sessionId),
        1,
      );
      return session;
    },
  };
}

/** The transcripts that may be of this directory, newest first; the key is lossy. */
async function transcriptsOf(root: string, directory: string): Promise<Transcript[]> {
  const key = directory.normalize("NFC").replaceAll(/[^a-zA-Z0-9]/g, "-");
  const folders = (await entries(join(root, "projects"))).filter((name) =>
    // A long key is cut, and a hash follows.
    key.length <= 200 ? name === key : name.startsWith(key.slice(0, 200)),
  );
  const found = await Promise.all(
    folders.map(async (folder) => {
      const path = join(root, "projects", folder);
      return await Promise.all((await entries(path)).map((name) => transcriptAt(path, name)));
    }),
  );
  return found
    .flat()
    .filter((transcript) => transcript !== undefined)
    .toSorted((a, b) => b.mtimeMs - a.mtimeMs);
}

async function transcriptAt(folder: string, name: string): Promise<Transcript | undefined> {
  const id = sessionFile.exec(name)?.[1];
  if (!id) return undefined;
  try {
    const path = join(folder, name);
    const { size, mtimeMs } = await stat(path);
    return { id, path, size, mtimeMs };
  } catch {
    // It vanished since it was listed.
    return undefined;
  }
}

/** What a transcript says of itself; null when nothing was ever asked in it, or it cannot be read. */
async function read(transcript: Transcript): Promise<Summary | null> {
  try {
    const { head, tail } = await readEnds(transcript);
    const { cwd, isSidechain } = head.find((candidate) => candidate.cwd !== undefined) ?? {};
    const asked = head.find(isPrompt);
    const first = asked ? textOf(asked) : "";
    const title = titleOf(tail) ?? titleOf(head) ?? first;
    if (!cwd || isSidechain || title === "") return null;
    return {
      session_id: transcript.id,
      title: fold(title).slice(0, titleLength),
      first_prompt: first.slice(0, promptLength),
      updated_at: new Date(transcript.mtimeMs).toISOString(),
      messages: await countMessages(transcript),
      cwd,
    };
  } catch {
    // Damaged, or gone since it was listed: it is no session that could be continued.
    return null;
  }
}

async function readEnds({ path, size }: Transcript): Promise<{ head: Line[]; tail: Line[] }> {
  const file = await open(path, "r");
  try {
    const bytes = Buffer.alloc(Math.min(endBytes, size));
    const first = await file.read(bytes, 0, bytes.length, 0);
    const head = lines(bytes.toString("utf8", 0, first.bytesRead));
    if (size <= endBytes) return { head, tail: head };
    const last = await file.read(bytes, 0, bytes.length, size - bytes.length);
    return { head, tail: lines(bytes.toString("utf8", 0, last.bytesRead)) };
  } finally {
    await file.close();
  }
}

/** The lines that are whole; the ones at the cut are not. */
function lines(text: string): Line[] {
  return text.split("\n").flatMap((candidate) => {
    try {
      const parsed = v.safeParse(line, JSON.parse(candidate));
      return parsed.success ? [parsed.output] : [];
    } catch {
      return [];
    }
  });
}

function titleOf(candidates: readonly Line[]): string | undefined {
  for (const key of ["customTitle", "aiTitle", "lastPrompt"] as const) {
    const title = candidates.findLast((candidate) => candidate[key])?.[key];
    if (title) return title;
  }
  return undefined;
}

/** Something that a person asked, and not what the CLI says in a person's name. */
function isPrompt(candidate: Line): boolean {
  if (candidate.type !== "user" || candidate.isMeta) return false;
  const text = textOf(candidate);
  return text !== "" && !/^\s*[<[]/.test(text);
}

function textOf({ message }: Line): string {
  const content = message?.content;
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  const block = v.looseObject({ type: v.literal("text"), text: v.string() });
  const found = content.find((item: unknown) => v.is(block, item));
  return v.is(block, found) ? found.text : "";
}

const fold = (text: string): string => text.replaceAll(/\s+/g, " ").trim();

async function entries(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch {
    // The CLI has never run here.
    return [];
  }
}
