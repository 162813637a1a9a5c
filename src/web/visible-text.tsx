import { memo } from "./memo.ts";
import { visible } from "./visible.ts";

/** More is not drawn, and that is said: it would hold the page up. */
const maxText = 20_000;

/** A text in which nothing is hidden: see `visible`. */
export const Visible = memo(({ text, prose, whole }: Properties) => {
  const shown = whole ? text : text.slice(0, maxText);
  return (
    <>
      {visible(shown, prose ? "prose" : "code").map((stretch) =>
        "text" in stretch ? stretch.text : <span class="unseen">{numbers(stretch.unseen)}</span>,
      )}
      {shown.length < text.length && (
        <span class="unseen">and {(text.length - shown.length).toLocaleString()} more</span>
      )}
    </>
  );
});

/** Of many, the first ones and how many there are. */
function numbers(unseen: readonly string[]): string {
  if (unseen.length <= 8) return unseen.join(" ");
  return `${unseen.slice(0, 8).join(" ")} and ${unseen.length - 8} more that cannot be seen`;
}

interface Properties {
  readonly text: string;
  /** Spaces of other kinds are left as they are. */
  readonly prose?: boolean;
  /** However long it is; whoever shows it has its own limit. */
  readonly whole?: boolean;
}
