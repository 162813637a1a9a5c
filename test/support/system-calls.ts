/** One system call, from when it was made to when it came back. */
export interface SystemCall {
  readonly name: string;
  /** Its arguments, as strace prints them with `-y`: descriptors are followed by what they are. */
  readonly text: string;
  readonly result: string;
  /** Places in the trace: a call made after another came back has the greater number. */
  readonly began: number;
  readonly ended: number;
}

const whole = /^(\w+)\((.*)\)\s+= (.*)$/;
const unfinished = /^(\w+)\((.*?)\s*<unfinished \.\.\.>$/;
const resumed = /^<\.\.\. (\w+) resumed>\s*(.*)\)\s+= (.*)$/;

/**
 * Reads what `strace -f -y` wrote, in which calls of several threads are mixed: a call that another
 * thread interrupted stands there in two parts. A call that never came back is left out.
 */
export function readTrace(trace: string): SystemCall[] {
  const calls: SystemCall[] = [];
  const open = new Map<string, { name: string; text: string; began: number }>();
  for (const [at, line] of trace.split("\n").entries()) {
    const [, thread = "", rest = ""] = /^(?:\[pid\s+)?(\d+)\]?\s+(.*)$/.exec(line) ?? [];
    const [, begun, early = ""] = unfinished.exec(rest) ?? [];
    if (begun) open.set(thread, { name: begun, text: early, began: at });
    const [, finished, late = "", outcome = ""] = resumed.exec(rest) ?? [];
    const first = open.get(thread);
    if (finished && first?.name === finished) {
      open.delete(thread);
      calls.push({ ...first, text: `${first.text}${late}`, result: outcome, ended: at });
    }
    const [, name, text = "", result = ""] = whole.exec(rest) ?? [];
    if (name) calls.push({ name, text, result, began: at, ended: at });
  }
  return calls.toSorted((a, b) => a.began - b.began);
}

/** A step that a trace must contain: a call of one of these names, about this. */
export interface Step {
  readonly what: string;
  readonly names: readonly string[];
  readonly about: RegExp;
}

/**
 * Finds each step begun only after the one before it came back without an error; of the last one
 * there may be no earlier call either. Names the step that is missing or too early, or nothing.
 */
export function outOfOrder(
  calls: readonly SystemCall[],
  steps: readonly Step[],
): string | undefined {
  let after = -1;
  for (const step of steps) {
    const matching = calls.filter(
      ({ name, text, result }) =>
        step.names.includes(name) && step.about.test(text) && !result.startsWith("-1"),
    );
    const found = step === steps.at(-1) ? matching[0] : matching.find(({ began }) => began > after);
    if (!found || found.began <= after) return step.what;
    after = found.ended;
  }
  return undefined;
}
