import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

/** A file of the console as it is served. */
export interface ConsoleFile {
  readonly path: string;
  readonly type: string;
  /** Gzip, in base64. */
  readonly body: string;
  /** Its name changes with its content. */
  readonly hashed: boolean;
}

const sources = join(import.meta.dir, "../web");
const types: Readonly<Record<string, string>> = {
  js: "text/javascript; charset=utf-8",
  css: "text/css; charset=utf-8",
  html: "text/html; charset=utf-8",
  svg: "image/svg+xml",
  png: "image/png",
  webmanifest: "application/manifest+json",
};

/** Builds the console from its sources: everything a browser asks for, ready to be sent. */
export async function bundleConsole(): Promise<readonly ConsoleFile[]> {
  const [script, style] = await Promise.all([built("main.tsx"), built("style.css")]);
  const shell = [named("console", "js", script), named("console", "css", style)] as const;
  const names = JSON.stringify(shell.map(({ path }) => path));
  const page = text("index.html")
    .replace("/SCRIPT", shell[0].path)
    .replace("/STYLE", shell[1].path);
  return [
    ...shell,
    file("/", "html", page),
    file("/sw.js", "js", await built("worker/service-worker.ts", { SHELL: names })),
    file("/manifest.webmanifest", "webmanifest", text("manifest.webmanifest")),
    file("/icon.svg", "svg", text("icon.svg")),
    ...["192", "512"].map((size) => {
      const name = `icon-${size}.png`;
      return file(`/${name}`, "png", readFileSync(join(sources, name)));
    }),
  ];
}

async function built(entry: string, define: Record<string, string> = {}): Promise<string> {
  const { outputs } = await Bun.build({
    entrypoints: [join(sources, entry)],
    target: "browser",
    minify: true,
    define: { ...define, "process.env.NODE_ENV": '"production"' },
  });
  const [output] = outputs;
  if (!output) throw new Error(`Cannot build ${entry}: nothing came of it`);
  return await output.text();
}

function named(name: string, extension: string, body: string): ConsoleFile {
  const hash = new Bun.CryptoHasher("sha256").update(body).digest("hex").slice(0, 12);
  return { ...file(`/${name}-${hash}.${extension}`, extension, body), hashed: true };
}

function file(path: string, extension: string, body: string | Buffer): ConsoleFile {
  const type = types[extension] ?? "application/octet-stream";
  return { path, type, body: gzipSync(body, { level: 9 }).toString("base64"), hashed: false };
}

function text(name: string): string {
  return readFileSync(join(sources, name), "utf8");
}
