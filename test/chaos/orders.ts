/** A prompt that a client has sent, and what it knows about it. */
export interface PromptOrder {
  readonly execution_id: string;
  readonly project: string;
  readonly round: number;
  readonly text: string;
  outcome: "unknown" | "acknowledged" | "refused";
  /** What the server says in the end has become of it, if it was asked, and when that was. */
  status?: string;
  askedAt?: string;
}

/** A directory that is, was or may be a project. */
export interface ProjectOrder {
  readonly path: string;
  /** Unknown while no reply and no list has named it. */
  id: string | undefined;
  creation: "unknown" | "acknowledged";
  deletion: "no" | "unknown" | "acknowledged";
}

/** Everything that clients have asked for, which the server has to answer for. */
export class Orders {
  readonly prompts: PromptOrder[] = [];
  readonly projects: ProjectOrder[] = [];
  round = 0;

  /** Projects that clients may work in. */
  get open(): readonly string[] {
    return this.projects.flatMap(({ id, deletion }) => (id && deletion === "no" ? [id] : []));
  }

  /** How many there are, or may be. */
  get made(): number {
    return this.projects.filter(({ deletion }) => deletion === "no").length;
  }

  prompt(project: string, text: (execution_id: string) => string): PromptOrder {
    const execution_id = crypto.randomUUID();
    const order: PromptOrder = {
      execution_id,
      project,
      round: this.round,
      text: text(execution_id),
      outcome: "unknown",
    };
    this.prompts.push(order);
    return order;
  }

  project(path: string): ProjectOrder {
    const order: ProjectOrder = { path, id: undefined, creation: "unknown", deletion: "no" };
    this.projects.push(order);
    return order;
  }

  named(id: string): ProjectOrder | undefined {
    return this.projects.find((order) => order.id === id);
  }
}
