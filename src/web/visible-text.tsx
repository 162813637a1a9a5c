import { memo } from "./memo.ts";
import { visible } from "./visible.ts";

/** A text in which nothing is hidden: see `visible`. */
export const Visible = memo(({ text }: { text: string }) => (
  <>
    {visible(text).map((stretch) =>
      "text" in stretch ? stretch.text : <span class="unseen">{stretch.codePoint}</span>,
    )}
  </>
));
