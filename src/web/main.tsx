import { signal } from "@preact/signals";
import { render } from "preact";
import { App } from "./app.tsx";
import type { Invitation } from "./door.tsx";
import { Store } from "./store.ts";

const invitation = signal<Invitation | undefined>(undefined);
takeInvitation();
// A page that is open already is not loaded again for another fragment.
addEventListener("hashchange", takeInvitation);

const store = new Store();
const root = document.querySelector("#app");
if (root) render(<App store={store} invitation={invitation} />, root);
store.start();

/** The code must not stay in the address, the history or a screenshot: before anything else. */
function takeInvitation(): void {
  const found = invitationOf(location.hash);
  if (!found) return;
  history.replaceState(null, "", "/");
  invitation.value = found;
}

/** Reads `#pair=CODE&fp=FINGERPRINT`. */
function invitationOf(hash: string): Invitation | undefined {
  const fields = new URLSearchParams(hash.slice(1));
  const code = fields.get("pair");
  return code === null ? undefined : { code, fingerprint: fields.get("fp") ?? undefined };
}
