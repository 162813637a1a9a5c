#!/usr/bin/env -S bun --no-env-file --config=/dev/null
/**
 * A stand-in for the `claude` CLI 2.1.197 that all tests run: the same command line, the same lines
 * in the same order, the same ways to misbehave. What it does is decided by the prompt, one
 * directive per line; a prompt without directives is answered with `echo: PROMPT`.
 *
 *   say:TEXT             one message             stream:N[:MS]        N deltas MS apart, one message
 *   thinking:TEXT        before the next text    big:BYTES            one message of that size
 *   flood:N[:BYTES[:MS]] N assistant lines MS apart, or as fast as they are read
 *   sleep:MS             pause                   hang                 never goes on
 *
 *   tool:NAME:JSON       a tool that needs permission; its outcome tells the input it ran with
 *   ask, plan[:TEXT]     AskUserQuestion, ExitPlanMode
 *   early[:NAME:JSON]    asks before the assistant line of the call
 *   parallel:N[:NAME]    N requests at once, each with an `agent_id`
 *   denied               a call denied without asking, with `permission_denied`
 *   bash:CMD             really runs it in its own session, without asking; an interrupt kills it
 *   child:CMD, leave     leaves a daemon behind (`leave`: sleep 300) that inherits the environment
 *   background:MS[:STEP] a task that ends MS after the result and then starts a turn by itself,
 *                        which does that step
 *
 *   error:TEXT           success with is_error   autherror            not logged in
 *   maxturns             error_max_turns         budget               error_max_budget_usd, for good
 *   retry:N, retrystorm[:N]   api_retry lines; the storm ends in an authentication error
 *   fallback, compact, ratelimit, inittwice, afterresult   the lines of that name
 *   clear                session_id changes      dup                  dropped as a known message
 *
 *   noresult, cutline    exit 0 without a result, or in the middle of it
 *   exit1:STDERR         exit 1, nothing on stdout
 *   selfkill:SIGNAL      dies of a signal        exitafter:MS         exit 1 MS after the result
 *   junk[:TEXT]          lines that are no messages
 *   utf8split[:TEXT]     a line in two writes, cut inside a character
 *   stderr:BYTES         that much on stderr
 *   hanginit             hangs before init       stubborn             ignores interrupt, end, signals
 *   ignoreinterrupt      for good                nocontrol            answers no control request
 *
 * FAKE_CLAUDE_LOG names a file that gets one JSON line per event: start (argv, cwd, umask, marker,
 * names of variables), stdin, signal, child (pid), end of input, exit. FAKE_CLAUDE_VERSION and
 * FAKE_CLAUDE_LOGGED_OUT=1 change what `--version` and `auth status` say.
 *
 * The first line keeps bun from running what a hostile project has in `bunfig.toml` or `.env`.
 */
import { writeSync } from "node:fs";
import { Agent } from "./fake-claude/agent.ts";
import { Arguments, Refusal } from "./fake-claude/arguments.ts";
import { version } from "./fake-claude/identity.ts";
import { recordStart } from "./fake-claude/record.ts";

const NO_PROMPT =
  "Error: Input must be provided either through stdin or as a prompt argument when using --print";

async function main(argv: readonly string[]): Promise<void> {
  recordStart(argv);
  if (argv[0] === "--version" || argv[0] === "-v") {
    writeSync(1, `${version()} (Claude Code)\n`);
    return;
  }
  if (argv[0] === "auth" && argv[1] === "status") {
    authStatus();
    return;
  }
  const given = new Arguments(argv);
  const agent = new Agent(given);
  agent.trapSignals();
  if (given.value("--input-format") === "stream-json") {
    await agent.converse();
    return;
  }
  const prompt = [given.prompt, await Bun.stdin.text()].filter((text) => text !== "").join("\n");
  if (prompt === "") throw new Refusal(NO_PROMPT);
  // Of a prompt of blanks the CLI makes nothing, and says nothing.
  if (prompt.trim() === "") return;
  await agent.answer(prompt);
  await agent.exit(agent.failed ? 1 : 0);
}

function authStatus(): void {
  const loggedIn = process.env["FAKE_CLAUDE_LOGGED_OUT"] !== "1";
  const status = loggedIn
    ? {
        loggedIn,
        authMethod: "api_key",
        apiProvider: "firstParty",
        apiKeySource: "ANTHROPIC_API_KEY",
      }
    : { loggedIn, authMethod: "none", apiProvider: "firstParty" };
  writeSync(1, `${JSON.stringify(status, null, 2)}\n`);
  process.exitCode = loggedIn ? 0 : 1;
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof Refusal)) throw error;
  if (error.cause) writeSync(1, `${JSON.stringify(error.cause)}\n`);
  writeSync(2, `${error.message}\n`);
  process.exitCode = 1;
}
