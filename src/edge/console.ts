import { gunzipSync } from "node:zlib";
import type { ConsoleFile } from "./console-bundle.ts";

/** Set by `scripts/compile.ts`; not there when the sources run as they are. */
declare const CONSOLE_FILES: string | undefined;

/** What the page may load and do: its own files, and talk to the server it came from. */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data: blob:",
  "connect-src 'self'",
  "manifest-src 'self'",
  "worker-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

let files: Promise<ReadonlyMap<string, ConsoleFile>> | undefined;

/** A file of the web console as a browser may have it; undefined if there is none at that path. */
export async function consoleFile(path: string, accepts: string): Promise<Response | undefined> {
  files ??= read();
  const file = (await files).get(path);
  if (!file) return undefined;
  const packed = Buffer.from(file.body, "base64");
  const gzip = /\bgzip\b/.test(accepts);
  return new Response(gzip ? packed : gunzipSync(packed), {
    headers: {
      "content-type": file.type,
      ...(gzip && { "content-encoding": "gzip" }),
      vary: "accept-encoding",
      "cache-control": file.hashed ? "public, max-age=31536000, immutable" : "no-cache",
      "content-security-policy": policy,
      "x-content-type-options": "nosniff",
      "referrer-policy": "no-referrer",
      "cross-origin-opener-policy": "same-origin",
      "cross-origin-resource-policy": "same-origin",
    },
  });
}

async function read(): Promise<ReadonlyMap<string, ConsoleFile>> {
  const built =
    typeof CONSOLE_FILES === "string"
      ? (JSON.parse(CONSOLE_FILES) as readonly ConsoleFile[])
      : await (await import("./console-bundle.ts")).bundleConsole();
  return new Map(built.map((file) => [file.path, file]));
}
