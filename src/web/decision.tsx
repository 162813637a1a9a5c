import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { PermissionRequest } from "../contract/messages.ts";
import type { RequestData } from "./link.ts";

export type Answer = Omit<RequestData<"permission_response">, "permission_id">;

export interface CardProps {
  readonly request: PermissionRequest;
  /** What this device may decide: `full` decides what runs, `approve` only whether. */
  readonly scope: "read" | "approve" | "full";
  readonly answer: (answer: Answer) => void;
  readonly busy: boolean;
}

interface DecisionProps extends Pick<CardProps, "scope" | "answer" | "busy"> {
  readonly name: string;
  readonly allow: () => void;
  readonly blocked: boolean;
  readonly children?: ComponentChildren;
}

/** The buttons of a card: yes, other ways of yes, and no with a reason. */
export function Decision({ scope, answer, busy, name, allow, blocked, children }: DecisionProps) {
  const [reason, setReason] = useState<string | undefined>(undefined);
  const [steady, setSteady] = useState(true);
  useEffect(() => {
    // A second tap on the button that was here is none on the one that is here now.
    setSteady(false);
    const timer = setTimeout(() => setSteady(true), 700);
    return () => clearTimeout(timer);
  }, [reason === undefined]);
  if (scope === "read") return null;
  const deny = (more: object) =>
    answer({ decision: "deny", ...(reason && { message: reason }), ...more });
  if (reason !== undefined)
    return (
      <div class="decision">
        {scope === "full" && (
          <textarea
            aria-label="Why not"
            placeholder="What should it do instead? (it is told)"
            rows={2}
            value={reason}
            onInput={(event) => setReason(event.currentTarget.value)}
          />
        )}
        <button type="button" class="deny" disabled={busy || !steady} onClick={() => deny({})}>
          Deny
        </button>
        <button
          type="button"
          class="deny"
          disabled={busy || !steady}
          onClick={() => deny({ interrupt: true })}
        >
          Deny and stop
        </button>
        <button type="button" class="quiet" onClick={() => setReason(undefined)}>
          Back
        </button>
      </div>
    );
  return (
    <div class="decision">
      <button type="button" class="allow" disabled={busy || blocked || !steady} onClick={allow}>
        {name}
      </button>
      <button type="button" class="deny" disabled={busy || !steady} onClick={() => setReason("")}>
        Deny…
      </button>
      {children}
    </div>
  );
}
