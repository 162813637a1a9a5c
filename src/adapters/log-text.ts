const colours = { debug: 90, info: 36, warn: 33, error: 31 } as const;
const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
/** Strings that are read as one word; all others are quoted, and what could mislead is escaped. */
const word = /^[\w.:/@%+~-]+$/;

/** A line of the log for a person: the time here, the level, the message, and what there is to know. */
export function textLine(line: string, coloured: boolean): string {
  const { timestamp, level, msg, ...fields }: Record<string, unknown> = JSON.parse(line);
  const colour = coloured && isLevel(level) ? (text: string) => paint(text, colours[level]) : same;
  const dim = coloured ? (text: string) => paint(text, colours.debug) : same;
  const rest = Object.entries(fields).flatMap(([name, value]) =>
    value === null || value === undefined ? [] : [`${dim(`${name}=`)}${shown(value)}`],
  );
  // Quoted for its escapes alone: a message that brings its own newline must not make a line.
  const text = JSON.stringify(msg).slice(1, -1).replaceAll('\\"', '"');
  const words = [dim(localTime(String(timestamp))), colour(String(level).padEnd(5)), text, ...rest];
  return `${words.join(" ")}\n`;
}

function shown(value: unknown): string {
  if (typeof value === "string") {
    if (uuid.test(value)) return value.slice(0, 8);
    return word.test(value) ? value : JSON.stringify(value);
  }
  return isError(value) ? JSON.stringify(errorText(value)) : JSON.stringify(value);
}

/** What an error says, and where it was made; the lines in between are in the JSON format. */
function errorText({ message, stack = "" }: { message: string; stack?: string }): string {
  const place = /^ +at (.+)$/m.exec(stack)?.[1];
  return place === undefined ? message : `${message} (at ${place})`;
}

function isError(value: unknown): value is { message: string; stack?: string } {
  return typeof value === "object" && value !== null && "message" in value && "stack" in value;
}

function isLevel(level: unknown): level is keyof typeof colours {
  return typeof level === "string" && Object.hasOwn(colours, level);
}

/** `2026-11-21 09:14:02.101` on this machine's clocks. */
function localTime(timestamp: string): string {
  const time = new Date(timestamp);
  const here = new Date(time.getTime() - time.getTimezoneOffset() * 60_000);
  return here.toISOString().slice(0, -1).replace("T", " ");
}

const paint = (text: string, code: number): string => `\u001b[${code}m${text}\u001b[0m`;
const same = (text: string): string => text;
