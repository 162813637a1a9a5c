#!/usr/bin/env -S bun --no-env-file --config=/dev/null
/**
 * Stands where the `claude` CLI would, and speaks as much of its live protocol as the server needs.
 * The prompt is JSON and says what to print: see `Feed`.
 */
import { writeSync } from "node:fs";
import { sharedClock } from "./shared-clock.ts";

/** What the feeder is asked for. */
export interface Feed {
  readonly lines: number;
  /** Of each line, with its newline. */
  readonly bytes: number;
  /** Lines per second; as fast as they are read if absent. */
  readonly rate?: number;
  /** Requests for a permission, each after the answer to the one before. */
  readonly asks?: number;
  /** Megabytes of something else that come first. */
  readonly noise?: { readonly megabytes: number; readonly lineBytes: number; readonly fd: 1 | 2 };
}

let asksLeft = 0;
const stampClock = sharedClock();
const session_id = crypto.randomUUID();
/** Source code, which has something to escape about every 26 characters; prose has less. */
const sample = `function total(items: readonly Item[]): number {
  const prices = items.map((item) => item.price);
  if (prices.length === 0) return fail("no items");
  return prices.reduce((sum, price) => sum + price, 0);
}
`;

function main(argument: string | undefined): Promise<void> | void {
  if (argument === "--version") return write(1, Buffer.from("2.1.197 (Claude Code)\n"));
  if (argument === "auth") return write(1, Buffer.from('{"loggedIn":true}\n'));
  return converse();
}

async function converse(): Promise<void> {
  for await (const line of console) {
    if (line === "") continue;
    const { type, request_id, message } = JSON.parse(line);
    if (type === "control_request")
      print({ type: "control_response", response: { subtype: "success", request_id } });
    if (type === "user") await answer(JSON.parse(message.content[0].text));
    if (type === "control_response") heard();
  }
}

async function answer(feed: Feed): Promise<void> {
  print({ type: "system", subtype: "init", session_id, claude_code_version: "2.1.197" });
  if (feed.asks) {
    asksLeft = feed.asks;
    return ask();
  }
  if (feed.noise) makeNoise(feed.noise);
  if (feed.rate === undefined) flood(feed);
  else await drip(feed, feed.rate);
  print({ type: "result", subtype: "success", is_error: false, session_id, result: "done" });
}

/** Asks, and says when it did. */
function ask(): void {
  asksLeft -= 1;
  const input = { stamp: stampClock() };
  const request = { subtype: "can_use_tool", tool_name: "Write", display_name: "Write", input };
  print({ type: "control_request", request_id: crypto.randomUUID(), request });
}

/** Says when the answer came, and asks again. */
function heard(): void {
  print({ type: "assistant", heard: stampClock(), session_id });
  if (asksLeft > 0) ask();
  else print({ type: "result", subtype: "success", is_error: false, session_id, result: "done" });
}

/** Many lines with one write, so that the feeder is never what limits the rate. */
function flood({ lines, bytes }: Feed): void {
  const one = Buffer.from(lineOf(bytes, 0));
  const count = Math.max(1, Math.floor(65_536 / bytes));
  const many = Buffer.concat(Array.from({ length: count }, () => one));
  for (let left = lines; left > 0; left -= count)
    write(1, left >= count ? many : many.subarray(0, left * bytes));
}

/** Each line says when it was printed, in microseconds of the clock that all processes share. */
async function drip({ lines, bytes }: Feed, rate: number): Promise<void> {
  const clock = sharedClock();
  const begin = performance.now();
  for (let printed = 0; printed < lines;) {
    const due = Math.min(lines, Math.floor(((performance.now() - begin) * rate) / 1000) + 1);
    for (; printed < due; printed += 1) write(1, Buffer.from(lineOf(bytes, clock())));
    await Bun.sleep(1);
  }
}

function makeNoise({ megabytes, lineBytes, fd }: NonNullable<Feed["noise"]>): void {
  const line = Buffer.alloc(lineBytes, "noise ");
  line.write("\n", lineBytes - 1);
  for (let left = megabytes * 1_048_576; left > 0; left -= lineBytes) write(fd, line);
}

function lineOf(bytes: number, stamp: number): string {
  const text = (filling: string) =>
    `${JSON.stringify({
      type: "assistant",
      message: {
        id: "msg_0123456789",
        type: "message",
        role: "assistant",
        model: "feeder",
        content: [{ type: "text", text: filling }],
      },
      session_id,
      stamp: String(stamp).padStart(16, "0"),
    })}\n`;
  const room = bytes - text("").length;
  const filling = filled(room);
  return text(filling + "x".repeat(Math.max(0, bytes - text(filling).length)));
}

const fillings = new Map<number, string>();

/** As much text like an agent's as fits into so many bytes of JSON. */
function filled(bytes: number): string {
  const known = fillings.get(bytes);
  if (known !== undefined) return known;
  const text = sample.repeat(Math.ceil(Math.max(0, bytes) / sample.length));
  let length = text.length;
  while (length > 0 && JSON.stringify(text.slice(0, length)).length - 2 > bytes) length -= 1;
  fillings.set(bytes, text.slice(0, length));
  return text.slice(0, length);
}

function print(message: object): void {
  write(1, Buffer.from(`${JSON.stringify(message)}\n`));
}

function write(fd: number, bytes: Buffer): void {
  for (let at = 0; at < bytes.length;) {
    try {
      at += writeSync(fd, bytes, at);
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EAGAIN")) throw error;
      Bun.sleepSync(0.2);
    }
  }
}

await main(process.argv[2]);
