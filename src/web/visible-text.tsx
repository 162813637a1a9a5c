import { memo } from "./memo.ts";
import { visible } from "./visible.ts";

/** A text in which nothing is hidden: see `visible`. */
export const Visible = memo(({ text, prose }: { text: string; prose?: boolean }) => (
  <>
    {visible(text, prose ? "prose" : "code").map((stretch) =>
      "text" in stretch ? (
        stretch.text
      ) : (
        <span class="unseen">
          {stretch.codePoint}
          {stretch.times > 1 && ` ×${stretch.times}`}
        </span>
      ),
    )}
  </>
));
