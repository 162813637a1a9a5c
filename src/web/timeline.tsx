import type { ComponentChildren } from "preact";
import type { Conversation } from "./conversation.ts";
import { Fallback } from "./fallback.tsx";
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
  const { items, live, state } = conversation;
  const running = state.value.state === "EXECUTING";
  const working = running && state.value.pending_permissions === 0;
  const online = store.link.standing.value.at === "online";
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
            <Fallback raw={item}>
              <ItemView item={item} />
            </Fallback>
          </div>
        ))}
        {newest && live.value.map((block, at) => <Live key={`live-${at}`} block={block} />)}
        {newest && working && live.value.length === 0 && <div class="mark working">Working…</div>}
        {newest &&
          conversation.queued.value.map(({ executionId, text }) => (
            <Waiting
              key={executionId}
              text={text}
              why={running ? "waits its turn" : "waits: the next prompt that you send goes first"}
            >
              {store.may("full") && (
                <button
                  type="button"
                  class="quiet"
                  onClick={() => takeBack(store, { project: conversation.id, executionId })}
                >
                  Take it back
                </button>
              )}
            </Waiting>
          ))}
        {newest && state.value.queued > conversation.queued.value.length && (
          <div class="mark">
            {state.value.queued - conversation.queued.value.length} more wait that were queued
            earlier
          </div>
        )}
        {newest &&
          unsent.map(({ executionId, prompt }) => (
            <Waiting
              key={executionId}
              text={prompt}
              why={online ? "on its way" : "on its way, as soon as there is a connection"}
            >
              <button
                type="button"
                class="quiet"
                onClick={() => store.attempt(async () => await store.outbox.remove(executionId))}
              >
                Take it back
              </button>
            </Waiting>
          ))}
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

function takeBack(store: Store, queued: { project: string; executionId: string }): void {
  const { project, executionId: execution_id } = queued;
  store.attempt(async () => {
    await store.ask("execution_cancel", { project, data: { execution_id } });
  });
}

/** A prompt that does not run yet. */
function Waiting(prompt: { text: string; why: string; children: ComponentChildren }) {
  return (
    <article class="prompt unsent">
      <div class="body" dir="auto">
        <Visible text={prompt.text} prose />
      </div>
      <div class="by">
        {prompt.why} {prompt.children}
      </div>
    </article>
  );
}
