import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import type { Telemetry } from "../../core/ports.ts";
import type { ProcessId } from "./processes.ts";

const unfinished = ".new";
const marker = v.pipe(v.string(), v.uuid());
const runRecord = v.object({
  project_id: v.string(),
  marker,
  started_at: v.string(),
  pid: v.optional(v.number()),
  start_time: v.optional(v.string()),
});
type RunRecord = v.InferOutput<typeof runRecord>;

/** A run of an earlier server; its project is null when the record does not say. */
export interface Leftover {
  readonly projectId: string | null;
  readonly marker: string;
  readonly known: readonly ProcessId[];
}

/** What was started and may still be running, on disk so that the next server can end it. */
export class RunRecords {
  readonly #dir: string;
  readonly #telemetry: Telemetry;

  constructor(dir: string, telemetry: Telemetry) {
    this.#dir = dir;
    this.#telemetry = telemetry;
    mkdirSync(dir, { recursive: true, mode: 0o700 });
  }

  /** Every record there is; unreadable ones are set aside. */
  leftovers(): Leftover[] {
    const names = readdirSync(this.#dir);
    // Of a record that was being written when the server died, the last whole one is there too.
    for (const name of names.filter((each) => each.endsWith(unfinished))) {
      rmSync(this.#path(name), { force: true });
    }
    return names.filter((name) => name.endsWith(".json")).flatMap((name) => this.#read(name));
  }

  /** Notes a process that is about to be started; written before it, so that none is missed. */
  begin(projectId: string, runMarker: string): Started {
    const record: RunRecord = {
      project_id: projectId,
      marker: runMarker,
      started_at: new Date().toISOString(),
    };
    this.#write(record);
    return {
      complete: ({ pid, started }) => this.#write({ ...record, pid, start_time: started }),
      remove: () => this.remove(runMarker),
    };
  }

  remove(runMarker: string): void {
    rmSync(this.#path(`${runMarker}.json`), { force: true });
  }

  #read(name: string): Leftover[] {
    try {
      const record = v.parse(runRecord, JSON.parse(readFileSync(this.#path(name), "utf8")));
      const { pid, start_time: started } = record;
      const known = pid !== undefined && started !== undefined ? [{ pid, started }] : [];
      return [{ projectId: record.project_id, marker: record.marker, known }];
    } catch (error) {
      this.#telemetry.log("warn", "A record of a run cannot be read", {
        file: name,
        error: String(error),
      });
      renameSync(this.#path(name), this.#path(`${name}.corrupt`));
      // Its name alone is enough to find the processes.
      const named = v.safeParse(marker, name.slice(0, -".json".length));
      return named.success ? [{ projectId: null, marker: named.output, known: [] }] : [];
    }
  }

  /** Renamed into place: a torn record would hide its processes from the next server. */
  #write(record: RunRecord): void {
    const path = this.#path(`${record.marker}.json`);
    writeFileSync(`${path}${unfinished}`, JSON.stringify(record), { mode: 0o600 });
    renameSync(`${path}${unfinished}`, path);
  }

  #path(name: string): string {
    return join(this.#dir, name);
  }
}

/** The record of one process. */
export interface Started {
  readonly complete: (id: ProcessId) => void;
  readonly remove: () => void;
}
