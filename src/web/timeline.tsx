import type { Conversation } from "./conversation.ts";
import { ItemView, Live } from "./items.tsx";
import type { Unsent } from "./outbox.ts";
import type { Store } from "./store.ts";
import { useWindow } from "./use-window.ts";
import { Visible } from "./visible-text.tsx";

/** A conversation as a window on its items, which keeps what is read where it is. */
export function Timeline({
  store,
  conversation,
  unsent,
}: {
  store: Store;
  conversation: Conversation;
  unsent: readonly Unsent[];
}) {
  const { items, live } = conversation;
  const { box, from, to, newest, stuck, scrolled, toEnd } = useWindow(store, conversation);
  return (
    <div class="timeline-frame">
      <div
        class="timeline"
        ref={box}
        onScroll={scrolled}
        tabIndex={0}
        role="region"
        aria-label="Conversation"
      >
        {conversation.loading.value === "older" && <div class="mark">Reading what was before…</div>}
        {from === 0 && !conversation.hasOlder.value && conversation.loading.value !== "start" && (
          <div class="mark">
            {items.value.length > 0 ? "The beginning" : "Nothing was said here yet"}
          </div>
        )}
        {items.value.slice(from, to).map((item) => (
          <div class="item" key={item.key} data-key={item.key}>
            <ItemView item={item} />
          </div>
        ))}
        {newest && live.value.map((block, at) => <Live key={`live-${at}`} block={block} />)}
        {newest && unsent.map((prompt) => <Waiting key={prompt.executionId} prompt={prompt} />)}
      </div>
      {!stuck && (
        <button type="button" class="to-end" onClick={toEnd}>
          {newest ? "↓" : "↓ newest"}
          <span class="hidden"> Go to the end</span>
        </button>
      )}
    </div>
  );
}

function Waiting({ prompt }: { prompt: Unsent }) {
  return (
    <article class="prompt unsent">
      <div class="body" dir="auto">
        <Visible text={prompt.prompt} prose />
      </div>
      <div class="by">on its way, as soon as there is a connection</div>
    </article>
  );
}
