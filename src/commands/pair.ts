import * as v from "valibot";
import { pairingQr } from "../access/pairing-code.ts";
import type { Candidate } from "../access/pairing.ts";
import { scopes } from "../contract/messages.ts";
import type { PairingOffer } from "../access/pairing-offer.ts";
import type { PairingEnding } from "../edge/control.ts";
import { ask } from "./ask.ts";
import { type Call, call, type Command, server, UsageError } from "./command.ts";
import type { PairingDialogue } from "./control-client.ts";

export const pair: Command = {
  about: "Let a new device in: shows a QR code, and asks before it is let in",
  usage: ["pair [--scope full|approve|read] [--yes]"],
  details: [
    "The code is good for 120 seconds and for one device. --yes lets in whoever has it without",
    "asking. With --json, for programs: one object a line; a line of yes or no answers.",
  ],
  async run(argv, env) {
    const from = call(argv, env, { scope: "value", yes: "switch" });
    const scope = v.safeParse(v.picklist(scopes), from.flags.get("scope") ?? "full");
    if (from.words.length > 0 || !scope.success)
      throw new UsageError("Cannot read the command: see pair --help");
    if (!from.json && !(process.stdin.isTTY && process.stdout.isTTY))
      throw new Error(
        "Cannot pair: the code is shown on a terminal only, and this is none; programs use --json",
      );
    using running = await server(from);
    if (!running) throw new Error("Cannot pair: no server is running on this data; start it first");
    const ending = await running.pair(scope.output, dialogueOf(from));
    console.log(from.json ? JSON.stringify(ending) : endingText(ending));
    return "device" in ending ? 0 : 1;
  },
};

/** The dialogue with whoever sits at this terminal. */
export function terminalDialogue({ yes }: { yes: boolean }): PairingDialogue {
  return {
    show: (offer) => console.log(offerText(offer)),
    async confirm(candidate) {
      console.log(candidateText(candidate));
      return yes || (await ask("Let it in? [y/N] "));
    },
  };
}

/** How it ended, in a sentence. */
export function endingText(ending: PairingEnding): string {
  if ("device" in ending)
    return `"${ending.device.name}" may come in now, with the scope ${ending.device.scope}`;
  return {
    expired: 'Nobody came in time; "pair" makes another code',
    declined: "It was not let in",
    replaced: "Another code was made in the meantime, which is good instead of this one",
    closed: "The code is no longer good",
  }[ending.end];
}

function dialogueOf({ json, flags }: Call): PairingDialogue {
  const yes = flags.has("yes");
  if (!json) return terminalDialogue({ yes });
  return {
    show: (offer) => console.log(JSON.stringify({ offer })),
    async confirm(candidate) {
      console.log(JSON.stringify({ candidate }));
      return yes || (await ask(""));
    },
  };
}

function offerText({ code, urls, fingerprint, expires_at }: PairingOffer): string {
  const [url = "", ...others] = urls;
  return [
    pairingQr(url),
    `  Open      ${url.replace(/#.*/, "")}`,
    ...others.map((other) => `  or        ${other.replace(/#.*/, "")}`),
    `  Code      ${code}`,
    `  Server    ${fingerprint}`,
    `  Good for one device, until ${new Date(expires_at).toLocaleTimeString()}`,
    "",
  ].join("\n");
}

function candidateText({ name, address, digits }: Candidate): string {
  return `"${name}" at ${address} has the code. It must show the digits ${digits}.`;
}
