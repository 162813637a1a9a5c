import { createInterface } from "node:readline/promises";

/** Asks whoever is at the terminal a question that is answered with yes, or else with no. */
export async function ask(question: string): Promise<boolean> {
  const terminal = createInterface({
    input: process.stdin,
    output: process.stderr,
    // Else Ctrl-C would be a character.
    terminal: false,
  });
  // Without anybody there it never answers.
  const gone = new Promise<string>((resolve) => terminal.once("close", () => resolve("")));
  try {
    const answer = await Promise.race([terminal.question(question), gone]);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    terminal.close();
  }
}
