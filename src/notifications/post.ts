/** What is sent to one place. */
export interface Letter {
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Uint8Array<ArrayBuffer>;
}

/** How it was received. */
export type Reception =
  | { readonly taken: true }
  | {
      readonly taken: false;
      /** Why, without the address, which may be a secret. */
      readonly reason: string;
      /** Of the answer, if there was one. */
      readonly status?: number;
      /** Whether the next attempt may have more luck. */
      readonly passing: boolean;
      /** How long the other side asks us to wait. */
      readonly retryAfterMs?: number;
    };

/** Sends a letter once. Redirects are not followed: they could lead anywhere. Never rejects. */
export async function post(
  { url, headers, body }: Letter,
  timeoutMs: number,
  stop: AbortSignal,
): Promise<Reception> {
  const signal = AbortSignal.any([stop, AbortSignal.timeout(timeoutMs)]);
  try {
    const request = { method: "POST", headers, body, signal, redirect: "manual" } as const;
    const { ok, status, headers: answer, body: rest } = await fetch(url, request);
    // Nobody reads it, and it may be long.
    await rest?.cancel();
    if (ok) return { taken: true };
    const retryAfterMs = retryAfter(answer.get("retry-after"));
    return {
      taken: false,
      reason: `the answer was ${status}`,
      status,
      passing: status === 429 || status >= 500,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    };
  } catch (error) {
    return { taken: false, reason: reasonOf(error), passing: true };
  }
}

/** Why something was not sent, in a word or two: the error itself may have the address in it. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return "unknown";
  if (error.name === "TimeoutError") return "there was no answer in time";
  if (error.name === "AbortError") return "the server stops";
  return "code" in error && typeof error.code === "string" ? error.code : error.name;
}

/** Milliseconds of a Retry-After, which is seconds or a date; undefined if it is neither. */
function retryAfter(header: string | null): number | undefined {
  if (header === null) return undefined;
  const ms = /^\d+$/.test(header) ? Number(header) * 1_000 : Date.parse(header) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}
