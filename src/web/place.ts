import { signal } from "@preact/signals";

/** Where the page is: in which project, and at which of its cards. */
export interface Place {
  readonly project: string | undefined;
  readonly permission: string | undefined;
}

/** Follows the fragment: `#/`, `#/projects/<id>`, `#/projects/<id>/<permission id>`. */
export const place = signal(placeOf(location.hash));
addEventListener("hashchange", () => {
  place.value = placeOf(location.hash);
});

function placeOf(hash: string): Place {
  const [, project, permission] = /^#\/projects\/([\w-]+)(?:\/([\w-]+))?$/.exec(hash) ?? [];
  return { project, permission };
}
