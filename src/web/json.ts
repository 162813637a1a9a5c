/** Reading of what an agent wrote: any field may be missing, or of another kind than it should be. */
export type Json = Readonly<Record<string, unknown>>;

/** A text as it is; anything else as JSON, and nothing as "". */
export function text(value: unknown): string {
  if (typeof value === "string") return value;
  return value === undefined ? "" : (JSON.stringify(value) ?? "");
}

export function number(value: unknown): number {
  return typeof value === "number" ? value : 0;
}

/** An object as it is; anything else as one without fields. */
export function object(value: unknown): Json {
  return typeof value === "object" && value !== null ? (value as Json) : {};
}

/** The elements of a list; of anything else none. */
export function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

/** Anything as JSON that a person can read. */
export function pretty(value: unknown): string {
  try {
    return JSON.stringify(value, null, 2) ?? "";
  } catch {
    return "This cannot be shown: it is nested too deeply.";
  }
}
