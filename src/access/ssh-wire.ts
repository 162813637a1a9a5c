/** What somebody sent is not what it should be. The message ends a sentence: "it is cut short". */
export class Malformed extends Error {
  override readonly name = "Malformed";
}

/** Reads SSH's wire format (RFC 4251, section 5) front to back. Throws nothing but Malformed. */
export class SshReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  /** That many bytes, as they are. */
  take(length: number): Buffer {
    const end = this.#at + length;
    if (end > this.#bytes.length) throw new Malformed("it is cut short");
    const bytes = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return bytes;
  }

  uint8(): number {
    return this.take(1).readUInt8();
  }

  uint32(): number {
    return this.take(4).readUInt32BE();
  }

  string(): Buffer {
    return this.take(this.uint32());
  }

  /** A string that names something; bytes outside of ASCII match no name. */
  name(): string {
    return this.string().toString("latin1");
  }

  /** The magnitude of a positive number in its only encoding: no sign, no needless zeros. */
  positive(): Buffer {
    const bytes = this.string();
    const [first = 0, second = 0] = bytes;
    if (bytes.length === 0 || first >= 0x80) throw new Malformed("a number is not positive");
    if (first > 0) return bytes;
    if (second < 0x80) throw new Malformed("a number has needless zeros");
    return bytes.subarray(1);
  }

  /** To be called last: what is left over would be covered by no check. */
  end(): void {
    if (this.#at < this.#bytes.length) throw new Malformed("something follows its end");
  }
}

/** One string of the wire format. */
export function sshString(content: string | Uint8Array): Buffer {
  const bytes = Buffer.from(content);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** The bytes of a text in base64 in its only spelling; undefined for everything else. */
export function fromBase64(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, "base64");
  return text !== "" && bytes.toString("base64") === text ? bytes : undefined;
}
