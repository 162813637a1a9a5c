/**
 * Where browsers have themselves notified: Chrome and most that are built like it, Chromium of the
 * distributions, Firefox, Safari, Edge. Whoever may subscribe could else make the server send
 * requests into the network that it is in.
 */
const known = [
  "fcm.googleapis.com",
  "jmt17.google.com",
  "*.push.services.mozilla.com",
  "*.push.apple.com",
  "*.notify.windows.com",
];

/** Whether an address is one of a push service, of a browser's or of `further` hosts. */
export function isPushService(endpoint: string, further: readonly string[]): boolean {
  const { protocol, username, password, host } = new URL(endpoint);
  if (protocol !== "https:" || username !== "" || password !== "") return false;
  // Others may read a name with another character in it in another way.
  if (!/^[a-z\d.-]+(:\d+)?$/.test(host)) return false;
  return [...known, ...further].some((pattern) =>
    pattern.startsWith("*.") ? host.endsWith(pattern.slice(1)) : host === pattern,
  );
}
