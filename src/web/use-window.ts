import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Conversation } from "./conversation.ts";
import type { Store } from "./store.ts";

/** So many items are in the page at once, however long the conversation is. */
const windowSize = 120;
const step = 40;
/** Nearer than this to an end, in pixels, more is put there. */
const near = 800;

interface Anchor {
  readonly key: string;
  readonly top: number;
}

/** Which items of a conversation are in the page, and that what is read stays where it is. */
export function useWindow(store: Store, conversation: Conversation) {
  const items = conversation.items.value;
  const box = useRef<HTMLDivElement>(null);
  // By key and not by place: items come and go at both ends.
  const [first, setFirst] = useState<string | undefined>(undefined);
  const [stuck, setStuck] = useState(true);
  const anchor = useRef<Anchor | undefined>(undefined);

  const tail = Math.max(0, items.length - windowSize);
  const found = items.findIndex(({ key }) => key === first);
  const from = stuck || first === undefined ? tail : Math.max(0, found);
  const to = Math.min(items.length, from + windowSize);
  const newest = to === items.length && !conversation.hasNewer.value;

  useLayoutEffect(() => {
    const element = box.current;
    if (!element) return;
    if (stuck) element.scrollTop = element.scrollHeight;
    else if (anchor.current) element.scrollTop += moved(element, anchor.current);
  });

  const online = store.link.standing.value.at === "online";
  const filled =
    !online || conversation.loading.value !== undefined || !conversation.hasOlder.value;
  useEffect(() => {
    // Where nothing can be scrolled, nobody can ask for more.
    const element = box.current;
    if (!filled && from === 0 && element && element.scrollHeight <= element.clientHeight)
      store.attempt(async () => await conversation.older());
  });

  const begin = (index: number) => setFirst(items[Math.max(0, Math.min(index, tail))]?.key);
  const scrolled = () => {
    const element = box.current;
    if (!element) return;
    const below = element.scrollHeight - element.scrollTop - element.clientHeight;
    anchor.current = anchorOf(element);
    // What is on its way to the newest stays at the end of what there is until then.
    if (below < 8 && (newest || stuck)) {
      setStuck(true);
      return;
    }
    if (stuck) {
      begin(from);
      setStuck(false);
    }
    if (element.scrollTop < near) {
      if (from > 0) begin(from - step);
      else store.attempt(async () => await conversation.older());
    } else if (below < near) {
      if (to < items.length) begin(from + step);
      else store.attempt(async () => await conversation.newer());
    }
  };
  const toEnd = () => {
    setStuck(true);
    store.attempt(async () => await conversation.toNewest());
  };
  return { box, from, to, newest, stuck, scrolled, toEnd };
}

/** The first item that is seen, and where. */
function anchorOf(element: HTMLElement): Anchor | undefined {
  const { top } = element.getBoundingClientRect();
  for (const child of element.querySelectorAll<HTMLElement>(":scope > .item")) {
    const box = child.getBoundingClientRect();
    if (box.bottom > top) return { key: child.dataset["key"] ?? "", top: box.top - top };
  }
  return undefined;
}

/** By how much an item is not where it was; 0 if it is no longer there. */
function moved(element: HTMLElement, anchor: Anchor): number {
  const child = element.querySelector(`:scope > [data-key="${CSS.escape(anchor.key)}"]`);
  if (!child) return 0;
  return child.getBoundingClientRect().top - element.getBoundingClientRect().top - anchor.top;
}
