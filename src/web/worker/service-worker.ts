import type { Notification } from "../../contract/notifications.ts";

/** Keeps the page itself, so that it opens without a network. Nothing of a project is ever kept. */
declare const self: ServiceWorkerGlobalScope;
/** Put there by the build: the names of the page's files, which change with what is in them. */
declare const SHELL: readonly string[];

const name = `shell ${SHELL.join(" ")}`;

self.addEventListener("install", (event) => {
  event.waitUntil(
    (async () => {
      const cache = await caches.open(name);
      await cache.addAll(["/", ...SHELL]);
      await self.skipWaiting();
    })(),
  );
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    (async () => {
      const old = (await caches.keys()).filter((other) => other !== name);
      await Promise.all(old.map(async (other) => await caches.delete(other)));
      await self.clients.claim();
    })(),
  );
});

self.addEventListener("fetch", (event) => {
  const { pathname, origin } = new URL(event.request.url);
  if (event.request.method !== "GET" || origin !== self.location.origin) return;
  if (pathname === "/") event.respondWith(fresh(event.request));
  else if (SHELL.includes(pathname)) event.respondWith(kept(event.request));
});

self.addEventListener("push", (event) => {
  const told: unknown = event.data?.json();
  if (!isNotification(told)) return;
  const { title, body, url, project_id: tag, event: kind } = told;
  // One per project: what came before is no news beside it.
  const options = { body, tag, data: url, icon: "/icon-192.png", renotify: kind === "needs_input" };
  event.waitUntil(self.registration.showNotification(title, options));
});

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(show(String(event.notification.data)));
});

/** Goes there in the page that is open, or in a new one. */
async function show(url: string): Promise<void> {
  const [page] = await self.clients.matchAll({ type: "window" });
  if (!page) return void (await self.clients.openWindow(url));
  await ((await page.navigate(url)) ?? page).focus();
}

function isNotification(value: unknown): value is Notification {
  return typeof value === "object" && value !== null && "url" in value && "title" in value;
}

/** From the server if it can be reached. */
async function fresh(request: Request): Promise<Response> {
  try {
    return await fetch(request);
  } catch {
    return (await caches.match("/")) ?? Response.error();
  }
}

async function kept(request: Request): Promise<Response> {
  return (await caches.match(request)) ?? (await fetch(request));
}
