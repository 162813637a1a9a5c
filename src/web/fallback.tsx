import { Component, type ComponentChildren } from "preact";
import { Code } from "./code.tsx";
import { pretty } from "./json.ts";

interface Properties {
  /** What is shown as it came, where it cannot be shown as what it means. */
  readonly raw: unknown;
  /** What stands below it then. */
  readonly below?: ComponentChildren;
  readonly children: ComponentChildren;
}

/** Keeps what the page cannot draw to its own place: an agent may send anything. */
export class Fallback extends Component<Properties, { failed: boolean }> {
  override state = { failed: false };

  static override getDerivedStateFromError(): { failed: boolean } {
    return { failed: true };
  }

  override render({ raw, below, children }: Properties): ComponentChildren {
    if (!this.state.failed) return children;
    return (
      <>
        {typeof raw === "string" ? (
          <Code text={raw} />
        ) : (
          <Code text={pretty(raw)} language="json" />
        )}
        {below}
      </>
    );
  }
}
