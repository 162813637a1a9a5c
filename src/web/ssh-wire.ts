const encoder = new TextEncoder();

/** Bytes one after the other. */
export function join(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Texts and bytes, each behind its length (`string` of RFC 4251, section 5). */
export function strings(...parts: readonly (Uint8Array | string)[]): Uint8Array<ArrayBuffer> {
  return join(
    ...parts.flatMap((part) => {
      const bytes = typeof part === "string" ? encoder.encode(part) : part;
      const length = new Uint8Array(4);
      new DataView(length.buffer).setUint32(0, bytes.length);
      return [length, bytes];
    }),
  );
}

/** A number without leading zeros, but with one where it would be negative (`mpint`, ibid.). */
export function mpint(bytes: Uint8Array): Uint8Array {
  const first = bytes.findIndex((byte) => byte !== 0);
  const number = bytes.subarray(first === -1 ? bytes.length : first);
  return (number[0] ?? 0) > 127 ? join(Uint8Array.of(0), number) : number;
}

/** Standard base64 with padding. */
export function base64(bytes: Uint8Array): string {
  return btoa(Array.from(bytes, (byte) => String.fromCodePoint(byte)).join(""));
}

/**
 * The 16 bytes of a pairing code, read as people type them: any case, with or without groups.
 * Undefined if it is none.
 */
export function pairingCode(typed: string): Uint8Array<ArrayBuffer> | undefined {
  const letters = typed.toUpperCase().replaceAll(/[\s-]/g, "");
  if (!/^[A-Z2-7]{26}$/.test(letters)) return undefined;
  const values = Array.from(letters, (letter) => alphabet.indexOf(letter));
  const bits = values.map((value) => value.toString(2).padStart(5, "0")).join("");
  return Uint8Array.from({ length: 16 }, (_, at) =>
    Number.parseInt(bits.slice(8 * at, 8 * at + 8), 2),
  );
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
