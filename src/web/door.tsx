import { useState } from "preact/hooks";
import type { Standing } from "./link.ts";
import { pairingCode } from "./ssh-wire.ts";
import type { Store } from "./store.ts";
import { Visible } from "./visible-text.tsx";

/** What a QR code put into the address. */
export interface Invitation {
  readonly code: string;
  readonly fingerprint: string | undefined;
}

/** What stands before the console until this device is let in. */
export function Door({
  store,
  standing,
  invitation,
}: {
  store: Store;
  standing: Standing;
  invitation: Invitation | undefined;
}) {
  return (
    <main class="door">
      <h1>Pocket Agent</h1>
      {standing.at === "pairing" ? (
        <Confirm store={store} digits={standing.digits} />
      ) : (
        <>
          {standing.at === "door" && standing.why && (
            <p class="error" role="alert">
              <Visible text={standing.why} />
            </p>
          )}
          <Invite store={store} invitation={invitation} />
        </>
      )}
    </main>
  );
}

function Confirm({ store, digits }: { store: Store; digits: string }) {
  return (
    <>
      <p>The terminal on the server now shows this device and six digits. Are they these?</p>
      <p class="digits" aria-label={digits.split("").join(" ")}>
        {digits}
      </p>
      <p>
        Then say <b>y</b> there. This page goes on by itself.
      </p>
      <button type="button" class="quiet" onClick={() => store.link.giveUp()}>
        They are not: give up
      </button>
    </>
  );
}

function Invite({ store, invitation }: { store: Store; invitation: Invitation | undefined }) {
  const [typed, setTyped] = useState(invitation?.code ?? "");
  const [name, setName] = useState(deviceName());
  const code = pairingCode(typed);
  const enter = (event: Event) => {
    event.preventDefault();
    if (!code || name.trim() === "") return;
    store.link.pair({ code, name: name.trim(), fingerprint: invitation?.fingerprint });
  };
  return (
    <>
      <p>This browser is not a device of the server yet. On the machine that it runs on:</p>
      <pre class="mono">pocket-agent-server pair</pre>
      <p>Then open the QR code that it shows with this device, or type the code here.</p>
      <form onSubmit={enter}>
        <label>
          Code
          <input
            class="mono"
            autocomplete="off"
            autocapitalize="characters"
            spellcheck={false}
            value={typed}
            placeholder="ABCD-EFGH-…"
            onInput={(event) => setTyped(event.currentTarget.value)}
          />
        </label>
        {typed !== "" && !code && (
          <p class="hint">A code has 26 letters and digits, without 0, 1, 8 and 9.</p>
        )}
        <label>
          Name of this device
          <input
            value={name}
            maxLength={64}
            onInput={(event) => setName(event.currentTarget.value)}
          />
        </label>
        <button type="submit" class="allow" disabled={!code || name.trim() === ""}>
          Pair this device
        </button>
        <button type="button" class="quiet" onClick={() => store.link.knock()}>
          I was paired before: try again
        </button>
      </form>
    </>
  );
}

function deviceName(): string {
  const agent = navigator.userAgent;
  const system = /iPhone|iPad|Android|Macintosh|Windows|Linux/.exec(agent)?.[0] ?? "Device";
  const browser = /Firefox|Edg|Chrome|Safari/.exec(agent)?.[0] ?? "";
  return `${system === "Macintosh" ? "Mac" : system}${browser ? ` ${browser.replace("Edg", "Edge")}` : ""}`;
}
