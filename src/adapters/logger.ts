import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  renameSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import pino from "pino";
import type { Config } from "../contract/options.ts";
import type { Telemetry } from "../core/ports.ts";
import { textLine } from "./log-text.ts";

/** C1 controls, bidi marks and line separators: they would let a value forge or hide log text. */
const deceptive = /[\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g;

/** Full files of a log that is written to a path; the projects' histories are kept for ever. */
const keptFiles = 5;

/** The server's log: one JSON object a line, or text for a person. */
export function createLogger(
  config: Pick<Config, "logLevel" | "logFormat" | "logOutput" | "logRotationSize">,
  env: Readonly<Record<string, string | undefined>> = {},
): Telemetry["log"] {
  const { logFormat, logOutput } = config;
  const write = destination(logOutput, config.logRotationSize);
  const terminal =
    logOutput === "stdout" || logOutput === "stderr" ? process[logOutput] : undefined;
  const coloured = terminal?.isTTY === true && !env["NO_COLOR"];
  const format = (line: string) => (logFormat === "text" ? textLine(line, coloured) : line);
  const logger = pino(
    {
      level: config.logLevel,
      base: null,
      messageKey: "msg",
      timestamp: () => `,"timestamp":"${new Date().toISOString()}"`,
      formatters: { level: (level) => ({ level }) },
      serializers: { error: pino.stdSerializers.err },
    },
    { write: (line) => write(plain(format(plain(line)))) },
  );
  return (level, text, fields) => logger[level](fields ?? {}, text);
}

/** `process.stdout.write` does not block on a stalled pipe, as console.log does (seen in Bun 1.4). */
function destination(output: string, maxBytes: number): (line: string) => void {
  if (output === "stdout") return (line) => void process.stdout.write(line);
  if (output === "stderr") return (line) => void process.stderr.write(line);
  mkdirSync(dirname(output), { recursive: true, mode: 0o700 });
  let file = openSync(output, "a", 0o600);
  let { size } = fstatSync(file);
  const write = (line: string) => {
    if (size > 0 && size + Buffer.byteLength(line) > maxBytes) {
      closeSync(file);
      shift(output);
      file = openSync(output, "a", 0o600);
      size = 0;
    }
    size += writeSync(file, line);
  };
  return (line) => {
    try {
      write(line);
    } catch (error) {
      // A full disk must not end whatever was worth a line.
      process.stderr.write(`Cannot write to the log "${output}": ${String(error)}\n${line}`);
    }
  };
}

/** Makes room for a new file: `log` becomes `log.1`, that `log.2`, and the oldest is no more. */
function shift(path: string): void {
  for (let age = keptFiles; age > 0; age -= 1) {
    const younger = age === 1 ? path : `${path}.${age - 1}`;
    if (existsSync(younger)) renameSync(younger, `${path}.${age}`);
  }
}

/** A line in which nothing is left that would show as something else than it is. */
export function plain(line: string): string {
  return line.replaceAll(
    deceptive,
    (character) => `\\u${(character.codePointAt(0) ?? 0).toString(16).padStart(4, "0")}`,
  );
}
