import { setDefaultTimeout, test } from "bun:test";
import * as fc from "fast-check";
import { scratch } from "./support/app.ts";
import { Interleaving, type Step } from "./support/interleaving.ts";

setDefaultTimeout(300_000);

/** 200 in all: several at a time, because most of the time is spent waiting for processes. */
const lanes = 4;
const runs = 50;

/** A request that the agent makes, and then goes on without an answer. */
const forgotten = JSON.stringify({
  type: "control_request",
  request_id: "forgotten",
  request: { subtype: "can_use_tool", tool_name: "Bash", input: {} },
});
const scripts = [
  "say:x",
  "stream:4:2",
  "sleep:20",
  "hang",
  'tool:Bash:{"command":"make"}',
  'tool:Bash:{"command":"a"}\nstream:3:1\ntool:Bash:{"command":"b"}',
  "parallel:3",
  "ask",
  "early",
  "background:5:say:done",
  'background:1:tool:Bash:{"command":"later"}',
  "error:no",
  "noresult",
  "exitafter:0",
  "exit1:broken",
  "retry:2",
  "/clear",
  "denied",
  `junk:${forgotten}\nsay:x`,
  `junk:${forgotten}\nnoresult`,
];

const seat = fc.nat(2);
/** Mostly one project, so that there is something to get into each other's way. */
const who = fc.record({ seat, project: fc.constantFrom(0, 0, 0, 1) });
const kinds: { weight: number; arbitrary: fc.Arbitrary<Step> }[] = [
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant("execute"),
      who,
      script: fc.constantFrom(...scripts),
      queue: fc.boolean(),
      // Some are sent again and again.
      id: fc.oneof(fc.constant(null), fc.nat(2)),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("answer"),
      who,
      which: fc.nat(2),
      how: fc.constantFrom("allow", "allow", "deny", "interrupt"),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("kill"), who, force: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("cancel"), who, which: fc.nat(2) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("set"), who, model: fc.constantFrom("opus", null) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("reset"), who }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("drop", "join"), seat }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("restart"), drain: fc.boolean() }) },
  { weight: 8, arbitrary: fc.record({ do: fc.constant("watch"), who, ms: fc.nat(400) }) },
];
const settings = fc.record({
  PA_EXECUTION_MAX_CONCURRENT: fc.constantFrom("1", "10"),
  PA_CLAUDE_IDLE_TIMEOUT: fc.constantFrom("0", "10ms", "60s"),
  PA_CLAUDE_MAX_WARM: fc.constantFrom("1", "4"),
});
const steps = fc.array(fc.oneof(...kinds), { minLength: 8, maxLength: 20, size: "max" });

test(`${lanes * runs} interleavings of prompts, answers, kills, drops and restarts end well`, async () => {
  let failed = false;
  const property = fc.asyncProperty(settings, steps, async (config, story) => {
    if (failed) return;
    await using stack = new AsyncDisposableStack();
    const played = Interleaving.play(await scratch(stack), config, story);
    await played.catch(() => (failed = true));
    await played;
  });
  // A failure names its seed and the steps; shrinking would take longer than reading them.
  const lane = () => fc.assert(property, { numRuns: runs, endOnFailure: true });
  // The others end in order before it is reported, or their processes would be left.
  const ends = await Promise.allSettled(Array.from({ length: lanes }, lane));
  for (const end of ends) if (end.status === "rejected") throw end.reason;
});
