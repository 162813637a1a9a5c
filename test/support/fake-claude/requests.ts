import type { Printer } from "./printer.ts";
import { isFields, type Fields } from "./record.ts";

/** What came of asking whether a tool may run. */
export type Answer =
  | { readonly kind: "allow"; readonly input: Fields; readonly updates: readonly unknown[] }
  | { readonly kind: "deny"; readonly message: string; readonly interrupt: boolean }
  | { readonly kind: "failed"; readonly message: string };

/** The `can_use_tool` requests that wait for an answer; they wait without limit. */
export class Requests {
  readonly #printer: Printer;
  readonly #open = new Map<string, (answer: Answer) => void>();
  #closed = false;

  constructor(printer: Printer) {
    this.#printer = printer;
  }

  ask(request: Fields): Promise<Answer> {
    const { promise, resolve } = Promise.withResolvers<Answer>();
    if (this.#closed) {
      resolve(streamClosed());
      return promise;
    }
    const id = crypto.randomUUID();
    this.#open.set(id, resolve);
    void this.#printer.control({
      type: "control_request",
      request_id: id,
      request: { subtype: "can_use_tool", ...request },
    });
    return promise;
  }

  /** Takes a `control_response`. Late and unknown ones are ignored. */
  answer(response: unknown): void {
    if (!isFields(response) || typeof response["request_id"] !== "string") return;
    const resolve = this.#open.get(response["request_id"]);
    this.#open.delete(response["request_id"]);
    resolve?.(read(response));
  }

  /** Takes all requests back, as an interrupt does. */
  withdraw(): void {
    for (const [id, resolve] of this.#open) {
      void this.#printer.control({ type: "control_cancel_request", request_id: id });
      resolve({ kind: "deny", message: "", interrupt: true });
    }
    this.#open.clear();
  }

  /** Nobody can answer any more. */
  close(): void {
    this.#closed = true;
    for (const resolve of this.#open.values()) resolve(streamClosed());
    this.#open.clear();
  }
}

function streamClosed(): Answer {
  return failed("Tool permission stream closed before response received");
}

function failed(why: string): Answer {
  return { kind: "failed", message: `Tool permission request failed: Error: ${why}` };
}

function read(response: Fields): Answer {
  if (response["subtype"] === "error") return failed(String(response["error"]));
  const answer = response["response"];
  if (!isFields(answer)) return failed("ZodError: invalid_union");
  if (answer["behavior"] === "deny") {
    const interrupt = answer["interrupt"] === true;
    return { kind: "deny", message: String(answer["message"]), interrupt };
  }
  // An allowance without the input that is to run is not understood.
  const input = answer["updatedInput"];
  if (answer["behavior"] !== "allow" || !isFields(input)) return failed("ZodError: invalid_union");
  const updates = answer["updatedPermissions"];
  return { kind: "allow", input, updates: Array.isArray(updates) ? updates : [] };
}
