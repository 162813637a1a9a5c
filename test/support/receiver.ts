/** What came in with one request. */
export interface Received {
  readonly path: string;
  readonly headers: Headers;
  readonly body: Buffer;
}

/** How a request is answered; `silence` is never. */
type Answer = { status: number; headers?: Record<string, string> } | "silence";

/** A service that notifications are sent to: it keeps what it gets, and answers as it is told. */
export class Receiver implements AsyncDisposable {
  readonly received: Received[] = [];
  readonly url: URL;
  readonly #server: Bun.Server<undefined>;
  readonly #answers: Answer[] = [];
  #taken = 0;
  #wake = Promise.withResolvers<void>();

  constructor(tls?: { cert: string; key: string }) {
    this.#server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      idleTimeout: 0,
      ...(tls && { tls }),
      fetch: (request) => this.#receive(request),
    });
    // The name of a certificate, and never a proxy's business.
    this.url = new URL(`http${tls ? "s" : ""}://localhost:${this.#server.port}/`);
  }

  /** Says how the next requests are answered; all others get 200. */
  answer(...answers: Answer[]): void {
    this.#answers.push(...answers);
  }

  /** The next request that was not taken yet. */
  async next(): Promise<Received> {
    const signal = AbortSignal.timeout(20_000);
    for (;;) {
      const received = this.received[this.#taken];
      if (received) {
        this.#taken += 1;
        return received;
      }
      if (signal.aborted) throw new Error(`No request came; there were ${this.received.length}`);
      // oxlint-disable-next-line no-await-in-loop -- waits
      await Promise.race([this.#wake.promise, Bun.sleep(200)]);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(true);
  }

  async #receive(request: Request): Promise<Response> {
    const body = Buffer.from(await request.arrayBuffer());
    const { pathname: path } = new URL(request.url);
    this.received.push({ path, headers: request.headers, body });
    const answer = this.#answers.shift() ?? { status: 200 };
    this.#wake.resolve();
    this.#wake = Promise.withResolvers();
    if (answer === "silence") return new Promise<Response>(() => undefined);
    const { status, headers = {} } = answer;
    return new Response(null, { status, headers });
  }
}
