import { get, update } from "idb-keyval";
import { useEffect, useRef } from "preact/hooks";

/** So many prompts of a project are remembered. */
const kept = 50;

/** The prompts that were sent from here, newest first; moving through them keeps what was written. */
export function useHistory(projectId: string) {
  const name = `prompts ${projectId}`;
  const past = useRef<readonly string[]>([]);
  const at = useRef(-1);
  const written = useRef("");
  useEffect(() => {
    const read = async () => {
      past.current = (await get<readonly string[]>(name)) ?? [];
    };
    void read();
  }, [name]);
  return {
    add(prompt: string) {
      past.current = [prompt, ...past.current.filter((other) => other !== prompt)].slice(0, kept);
      at.current = -1;
      void update(name, () => past.current);
    },
    /** The prompt `by` steps older; undefined if the cursor should move instead. */
    move(by: 1 | -1, text: string): string | undefined {
      const shown = at.current === -1 ? written.current : past.current[at.current];
      if (at.current === -1 ? text.includes("\n") || (text !== "" && by === 1) : text !== shown)
        return undefined;
      const to = at.current + by;
      if (to < -1 || to >= past.current.length) return undefined;
      if (at.current === -1) written.current = text;
      at.current = to;
      return to === -1 ? written.current : past.current[to];
    },
  };
}
