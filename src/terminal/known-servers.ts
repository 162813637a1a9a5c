import { appendFileSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { dirname } from "node:path";

/** Which key a server showed when a person said that it is the right one, a line for each server. */
export class KnownServers {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** The fingerprint of `host`, as in a URL and with its port; undefined if it is not known. */
  fingerprint(host: string): string | undefined {
    if (!existsSync(this.path)) return undefined;
    for (const line of readFileSync(this.path, "utf8").split("\n")) {
      const [name, fingerprint] = line.trim().split(/\s+/);
      if (name === host) return fingerprint;
    }
    return undefined;
  }

  add(host: string, fingerprint: string): void {
    mkdirSync(dirname(this.path), { recursive: true, mode: 0o700 });
    appendFileSync(this.path, `${host} ${fingerprint}\n`, { mode: 0o600 });
  }
}
