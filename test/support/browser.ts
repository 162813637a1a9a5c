import { type Browser as Launched, chromium, type Page } from "playwright-core";

const executablePath = process.env["CHROMIUM"] ?? Bun.which("chromium") ?? "/usr/bin/chromium";

/**
 * What a browser says of connections that a test cut, and of a service worker behind a certificate
 * that nobody has installed.
 */
const expected = /WebSocket connection to|net::ERR_CONNECTION|SSL certificate error/;

export interface View {
  readonly width?: number;
  readonly height?: number;
  readonly scheme?: "light" | "dark";
}

/** Sizes that pages are looked at in. */
export const phone = { width: 360, height: 740 } as const;
export const desk = { width: 1280, height: 800 } as const;

/** A real browser without a window (Debian package chromium). */
export class Browser implements AsyncDisposable {
  readonly #launched: Launched;
  /** What pages complained of: exceptions, errors in the console, violated policies. */
  readonly problems: string[] = [];

  private constructor(launched: Launched) {
    this.#launched = launched;
  }

  static async start(args: readonly string[] = []): Promise<Browser> {
    return new Browser(
      await chromium.launch({
        executablePath,
        args: ["--no-sandbox", "--disable-gpu", "--disable-quic", ...args],
      }),
    );
  }

  /** Opens an address as a new person would, with nothing stored and a short patience. */
  async open(url: string | URL, { width = 1280, height = 800, scheme }: View = {}): Promise<Page> {
    const context = await this.#launched.newContext({
      viewport: { width, height },
      hasTouch: width < 500,
      colorScheme: scheme ?? "light",
      // A certificate that a server made itself is one that somebody has to accept.
      ignoreHTTPSErrors: true,
    });
    const page = await context.newPage();
    page.setDefaultTimeout(15_000);
    page.on("pageerror", (error) => this.problems.push(String(error.stack ?? error)));
    page.on("console", (message) => {
      if (message.type() === "error" && !expected.test(message.text()))
        this.problems.push(message.text());
    });
    await page.goto(String(url));
    return page;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#launched.close();
  }
}

/** What a site of a test's own shows. */
export function emptyPage(): Response {
  return new Response("<!doctype html>", { headers: { "content-type": "text/html" } });
}
