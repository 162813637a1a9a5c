import { useEffect, useState } from "preact/hooks";
import { Dialog } from "./dialog.tsx";
import { Refusal, type Reply } from "./link.ts";
import type { Store } from "./store.ts";
import { Visible } from "./visible-text.tsx";

/** Finds a directory on the server, or takes a typed one, and makes a project of it. */
export function NewProject({ store, close }: { store: Store; close: () => void }) {
  const [listing, setListing] = useState<Reply<"directory_list"> | undefined>(undefined);
  const [path, setPath] = useState("");
  const [trouble, setTrouble] = useState("");
  const run = async (work: () => Promise<void>) => {
    try {
      setTrouble("");
      await work();
    } catch (cause) {
      if (!(cause instanceof Refusal)) throw cause;
      setTrouble(cause.message);
    }
  };
  const look = async (into?: string) =>
    await run(async () => {
      const data = into === undefined ? {} : { path: into };
      const found = await store.link.request("directory_list", { data });
      setListing(found);
      setPath(found.path);
    });
  useEffect(() => store.attempt(look), []);
  const create = async () =>
    await run(async () => {
      const { id } = await store.link.request("project_create", { data: { path } });
      location.hash = `#/projects/${id}`;
      close();
    });
  const go = (into: string | undefined) => store.attempt(async () => await look(into));
  return (
    <Dialog title="New project" close={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          store.attempt(create);
        }}
      >
        <label>
          Directory on the server
          <input
            class="mono"
            value={path}
            spellcheck={false}
            autocapitalize="off"
            onInput={(event) => setPath(event.currentTarget.value)}
          />
        </label>
        {trouble && (
          <p class="error" role="alert">
            <Visible text={trouble} />
          </p>
        )}
        <ul class="directories">
          {listing?.parent && (
            <li>
              <button type="button" onClick={() => go(listing.parent ?? undefined)}>
                .. <span class="hidden">Up</span>
              </button>
            </li>
          )}
          {listing?.entries.map((entry) => (
            <li key={entry.path}>
              <button type="button" onClick={() => go(entry.path)}>
                <Visible text={entry.name} />
                {entry.project_id && <small> is a project</small>}
              </button>
            </li>
          ))}
          {listing && listing.entries.length === 0 && <li class="hint">No directories in it</li>}
        </ul>
        <button type="submit" class="allow" disabled={path === ""}>
          Use this directory
        </button>
      </form>
    </Dialog>
  );
}
