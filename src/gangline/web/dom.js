// Making and updating elements. Data only ever becomes text or an attribute value, never markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * A new HTML element. `properties`: `text`, `on: {event: listener}`, `hidden`/`disabled` and the
 * like as booleans, anything else as an attribute; null and undefined are left out.
 */
export function element(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** A new SVG element; the same properties as `element`. */
export function graphic(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name === "text") node.textContent = value;
    else if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (typeof value === "boolean") node.toggleAttribute(name, value);
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Sets the text where it changed, so that a selection in unchanged text survives. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets or (null) removes an attribute where it changed. */
export function setAttribute(node, name, value) {
  if (value === null || value === undefined) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

const keptByList = new WeakMap();

/**
 * Makes the children of `list` stand for `items`, in their order. A child lives as long as its key
 * does: `make(item)` returns `{root, update(item)}` once, later changes go through `update`.
 */
export function keyed(list, items, keyOf, make) {
  const kept = keptByList.get(list) ?? new Map();
  keptByList.set(list, kept);
  const wanted = new Set(items.map(keyOf));
  for (const [key, child] of kept) {
    if (wanted.has(key)) continue;
    child.root.remove();
    kept.delete(key);
  }
  items.forEach((item, index) => {
    const key = keyOf(item);
    let child = kept.get(key);
    if (!child) {
      child = make(item);
      kept.set(key, child);
    }
    // Moving an element drops its focus, so only those out of place are moved.
    const there = list.children[index] ?? null;
    if (there !== child.root) list.insertBefore(child.root, there);
    child.update(item);
  });
}
