// The little of Markdown that answers use: fenced code, inline code, bold, paragraphs, lists and
// headings as plain lines. Makes DOM nodes from text; nothing in the text can become markup.

import { element } from "./dom.js";

const FENCE = /^ {0,3}(```+|~~~+)\s*([^\s`]*)[^`]*$/;
const INLINE = /(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)|\*\*(?=\S)([\s\S]*?\S)\*\*/g;

/**
 * Text → blocks `{kind: "text" | "code", source, language}`. A fence that is still open is a code
 * block already, so that an answer does not jump when its fence closes.
 */
export function blocks(text) {
  const found = [];
  let paragraph = [];
  let code = null;
  const flush = () => {
    const source = paragraph.join("\n").replace(/^\n+|\s+$/g, "");
    if (source) found.push({ kind: "text", source, language: "" });
    paragraph = [];
  };
  for (const line of text.split("\n")) {
    const fence = FENCE.exec(line);
    if (code) {
      if (fence && fence[2] === "" && fence[1].startsWith(code.mark)) {
        found.push({ kind: "code", source: code.lines.join("\n"), language: code.language });
        code = null;
      } else code.lines.push(line);
    } else if (fence) {
      flush();
      code = { mark: fence[1], language: fence[2], lines: [] };
    } else if (line.trim() === "") flush();
    else paragraph.push(line);
  }
  flush();
  if (code) found.push({ kind: "code", source: code.lines.join("\n"), language: code.language });
  return found;
}

/** One paragraph → parts `{kind: "text" | "code" | "bold", text}`. */
export function inline(source) {
  const parts = [];
  let end = 0;
  for (const match of source.matchAll(INLINE)) {
    if (match.index > end) parts.push({ kind: "text", text: source.slice(end, match.index) });
    if (match[1]) parts.push({ kind: "code", text: match[2] });
    else parts.push({ kind: "bold", text: match[3] });
    end = match.index + match[0].length;
  }
  if (end < source.length) parts.push({ kind: "text", text: source.slice(end) });
  return parts;
}

const INLINE_TAGS = { code: "code", bold: "strong" };

function blockNode({ kind, source, language }) {
  if (kind === "code") {
    // tabindex: a block that scrolls sideways must be reachable without a mouse.
    const label = language ? `Code, ${language}` : "Code";
    return element("pre", { tabindex: 0, role: "group", "aria-label": label },
      element("code", { text: source }));
  }
  const parts = inline(source).map((part) => (
    part.kind === "text" ? part.text : element(INLINE_TAGS[part.kind], { text: part.text })));
  return element("p", {}, ...parts);
}

const shown = new WeakMap();

function same(a, b) {
  return a?.kind === b.kind && a.source === b.source && a.language === b.language;
}

/** Shows `text` in `container`; blocks that did not change since the last call are kept. */
export function render(container, text) {
  const before = shown.get(container) ?? [];
  const now = blocks(text);
  now.forEach((block, index) => {
    if (same(before[index], block)) return;
    const old = container.children[index];
    if (old) old.replaceWith(blockNode(block));
    else container.append(blockNode(block));
  });
  while (container.children.length > now.length) container.lastElementChild.remove();
  shown.set(container, now);
}
