import { Component, type ComponentChildren, type FunctionComponent } from "preact";

/** A component that is drawn again only when its properties changed. */
export function memo<P extends object>(
  draw: (properties: P) => ComponentChildren,
  same: (before: P, after: P) => boolean = shallow,
): FunctionComponent<P> {
  class Memo extends Component<P> {
    override shouldComponentUpdate(next: P): boolean {
      return !same(this.props, next);
    }

    override render(properties: P): ComponentChildren {
      return draw(properties);
    }
  }
  return Memo as unknown as FunctionComponent<P>;
}

function shallow<P extends object>(before: P, after: P): boolean {
  const names = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...names].every((name) => before[name as keyof P] === after[name as keyof P]);
}
