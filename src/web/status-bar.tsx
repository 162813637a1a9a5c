import { useEffect, useState } from "preact/hooks";
import { Dialog } from "./dialog.tsx";
import type { Standing } from "./link.ts";
import type { Store } from "./store.ts";
import { Visible } from "./visible-text.tsx";

/** How it stands with the connection, always true; opens what there is to know about this device. */
export function StatusBar({ store }: { store: Store }) {
  const [open, setOpen] = useState(false);
  const { standing, roundTripMs, device } = store.link;
  const trip = roundTripMs.value;
  return (
    <footer class="status">
      {/* A count that changes every second is not read out. */}
      <span class="hidden" role="status">
        {standing.value.at === "online" ? "Connected" : "No connection"}
      </span>
      <button type="button" class="quiet" onClick={() => setOpen(true)}>
        <span class={`dot ${standing.value.at}`} />
        <span>
          <StandingText standing={standing.value} />
        </span>
        {standing.value.at === "online" && trip !== undefined && (
          <small>{Math.round(trip)} ms</small>
        )}
        <small class="who">
          {device.value ? <Visible text={device.value.name} /> : "no login needed"}
        </small>
      </button>
      {open && <About store={store} close={() => setOpen(false)} />}
    </footer>
  );
}

/** How it stands with the connection, in words. */
export function StandingText({ standing }: { standing: Standing }) {
  const [now, setNow] = useState(Date.now());
  const waits = standing.at === "offline";
  useEffect(() => {
    if (!waits) return undefined;
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 1_000);
    return () => clearInterval(timer);
  }, [waits]);
  if (standing.at === "online") return <>Connected</>;
  if (standing.at !== "offline") return <>Connecting…</>;
  const seconds = Math.max(0, Math.ceil((standing.retryAt - now) / 1000));
  return (
    <>
      {standing.why}. Next try in {seconds} s
    </>
  );
}

/** Whether this device is told when the agent needs somebody. */
function Shoulder({ store }: { store: Store }) {
  const { notifications } = store;
  const told = notifications.told.value;
  if (told === "blocked")
    return <p class="hint">Notifications are blocked for this page in the browser's settings.</p>;
  if (told === "impossible")
    return (
      <p class="hint">
        No notifications here: the browser gives them only to pages with a certificate that it
        trusts, and on an iPhone only to those on the home screen.
      </p>
    );
  const change = async () =>
    await (told === "on" ? notifications.turnOff() : notifications.turnOn());
  return (
    <button type="button" onClick={() => store.attempt(change)}>
      {told === "on"
        ? "Stop notifying this device"
        : "Notify this device when the agent needs somebody, is done or has failed"}
    </button>
  );
}

function About({ store, close }: { store: Store; close: () => void }) {
  const { device, fingerprint, server, standing } = store.link;
  const [sure, setSure] = useState(false);
  return (
    <Dialog title="This device" close={close}>
      <dl>
        {device.value && (
          <>
            <dt>Name</dt>
            <dd>
              <Visible text={device.value.name} />
            </dd>
            <dt>May</dt>
            <dd>
              {
                {
                  read: "watch",
                  approve: "watch, and answer what the agent asks",
                  full: "do everything",
                }[device.value.scope]
              }
            </dd>
            <dt>Fingerprint of its key</dt>
            <dd class="mono">{fingerprint.value}</dd>
          </>
        )}
        <dt>Server</dt>
        <dd>
          {location.host}, version {server.value?.version}
        </dd>
        <dt>Fingerprint of the server's key</dt>
        <dd class="mono">{server.value?.id}</dd>
      </dl>
      {device.value && <Shoulder store={store} />}
      {standing.value.at === "offline" && (
        <button type="button" onClick={() => store.link.wake()}>
          Try now
        </button>
      )}
      {device.value && !sure && (
        <button type="button" class="quiet danger" onClick={() => setSure(true)}>
          Forget the key in this browser…
        </button>
      )}
      {device.value && sure && (
        <div class="banner error">
          <span>
            This browser must then be paired again. Remove the device on the server as well:
            pocket-agent-server devices revoke.
          </span>
          <button
            type="button"
            class="deny"
            onClick={() => store.attempt(async () => await store.link.leave())}
          >
            Forget it
          </button>
        </div>
      )}
    </Dialog>
  );
}
