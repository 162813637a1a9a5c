import { Lexer, type Token, type Tokens } from "marked";
import type { ComponentChildren } from "preact";
import { memo } from "./memo.ts";
import { Code } from "./code.tsx";
import { Visible } from "./visible-text.tsx";

/**
 * Markdown as elements. No HTML is ever made of it: tags are shown as the text that they are, an
 * image is a link, and a link opens outside and says nothing of where it came from.
 */
export const Markdown = memo(({ text }: { text: string }) =>
  text.length > maxText ? <Code text={text} language="markdown" /> : <Rich text={text} />,
);

/** More would hold the page up while it is drawn. */
export const maxText = 20_000;

const Rich = memo(({ text }: { text: string }) => (
  <div class="markdown" dir="auto">
    {/* A paragraph that did not change since the last delta is not made again. */}
    {new Lexer({ gfm: true }).lex(text).map((token, at) => (
      <Block key={at} raw={token.raw} token={token} />
    ))}
  </div>
));

const Block = memo(
  ({ token }: { raw: string; token: Token }) => <>{block(token)}</>,
  (before, after) => before.raw === after.raw && before.token.type === after.token.type,
);

function block(token: Token): ComponentChildren {
  const t = token as Tokens.Generic;
  switch (token.type) {
    case "space":
      return null;
    case "code":
      return <Code text={String(t["text"])} language={String(t["lang"] ?? "").split(/\s/)[0]} />;
    case "heading":
      return heading(Number(t["depth"]), inline(t.tokens));
    case "hr":
      return <hr />;
    case "blockquote":
      return <blockquote>{blocks(t.tokens)}</blockquote>;
    case "list":
      return list(token as Tokens.List);
    case "table":
      return table(token as Tokens.Table);
    case "paragraph":
      return <p>{inline(t.tokens)}</p>;
    case "text":
      return t.tokens ? inline(t.tokens) : plain(token.raw);
    default:
      return <p>{plain(token.raw)}</p>;
  }
}

/** A conversation has headings of its own, so these begin below them. */
function heading(depth: number, children: ComponentChildren): ComponentChildren {
  if (depth === 1) return <h3>{children}</h3>;
  if (depth === 2) return <h4>{children}</h4>;
  return <h5>{children}</h5>;
}

function blocks(tokens: readonly Token[] = []): ComponentChildren {
  return tokens.map((token) => block(token));
}

function list({ ordered, start, items }: Tokens.List): ComponentChildren {
  const children = items.map((item) => (
    <li class={item.task ? "task" : undefined}>
      {item.task && (
        <input type="checkbox" checked={item.checked ?? false} disabled aria-label="done" />
      )}
      {blocks(item.tokens.filter(({ type }) => type !== "checkbox"))}
    </li>
  ));
  return ordered ? <ol start={Number(start) || 1}>{children}</ol> : <ul>{children}</ul>;
}

function table({ header, rows }: Tokens.Table): ComponentChildren {
  return (
    <div class="wide" tabIndex={0} role="region" aria-label="Table">
      <table>
        <thead>
          <tr>
            {header.map((cell) => (
              <th>{inline(cell.tokens)}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr>
              {row.map((cell) => (
                <td>{inline(cell.tokens)}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function inline(tokens: readonly Token[] = []): ComponentChildren {
  return tokens.map((token) => {
    const t = token as Tokens.Generic;
    switch (token.type) {
      case "strong":
        return <strong>{inline(t.tokens)}</strong>;
      case "em":
        return <em>{inline(t.tokens)}</em>;
      case "del":
        return <del>{inline(t.tokens)}</del>;
      case "codespan":
        return (
          <code>
            <Visible text={String(t["text"])} />
          </code>
        );
      case "br":
        return <br />;
      case "link":
        return link(String(t["href"]), inline(t.tokens));
      case "image":
        return link(String(t["href"]), plain(`[image: ${String(t["text"]) || "no description"}]`));
      case "escape":
        return plain(String(t["text"]));
      case "text":
        return t.tokens ? inline(t.tokens) : plain(token.raw);
      default:
        return plain(token.raw);
    }
  });
}

function link(href: string, children: ComponentChildren): ComponentChildren {
  if (!/^(https?:\/\/|mailto:)/i.test(href))
    return (
      <span class="dead">
        {children} ({plain(href)})
      </span>
    );
  return (
    <a
      href={href}
      title={href}
      target="_blank"
      rel="noopener noreferrer"
      referrerpolicy="no-referrer"
    >
      {children}
    </a>
  );
}

/** A text as it is meant: with what cannot be seen in it, and its character references read. */
function plain(text: string): ComponentChildren {
  return <Visible text={references(text)} prose whole />;
}

const named: Readonly<Record<string, string>> = {
  amp: "&",
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
  nbsp: " ",
  hellip: "…",
  mdash: "—",
  ndash: "–",
};

function references(text: string): string {
  return text.replaceAll(/&(#\d{1,7}|#x[\da-f]{1,6}|\w{2,8});/gi, (whole, reference: string) => {
    if (!reference.startsWith("#")) return named[reference] ?? whole;
    const hex = /^#x/i.test(reference);
    const point = hex ? Number.parseInt(reference.slice(2), 16) : Number(reference.slice(1));
    return point > 0 && point <= 0x10ffff ? String.fromCodePoint(point) : whole;
  });
}
