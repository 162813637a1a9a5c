import { signal } from "@preact/signals";
import { Visible } from "./visible-text.tsx";

/** What went wrong last, for a person. */
export const trouble = signal("");

/** Shows it. A dialog covers the page, so that each has a place for it too. */
export function Trouble() {
  if (trouble.value === "") return null;
  return (
    <div class="toast" role="alert">
      <Visible text={trouble.value} prose />
      <button
        type="button"
        class="quiet icon"
        aria-label="Close the message"
        onClick={() => (trouble.value = "")}
      >
        ✕
      </button>
    </div>
  );
}
