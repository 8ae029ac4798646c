// Draws the gangline: the rope on which the nodes of the followed model are hitched, with round
// trip and bandwidth at each hop. Gets the cards' places from their elements, draws only SVG.

import { graphic, keyed, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";
import { ropePast } from "./geometry.js";

/** "31 µs · 22.1 Gb/s", without what was not measured. */
export function hopLabel({ rttUs, gbps, broken }) {
  if (broken) return "cut";
  const parts = [];
  if (rttUs !== null) parts.push(format.microseconds(rttUs));
  if (gbps !== null) parts.push(format.gigabits(gbps));
  return parts.join(" · ");
}

function strand(className) {
  const layers = ["rope-body", "rope-twist", "rope-flow"];
  const paths = layers.map((name) => graphic("path", { class: name }));
  const root = graphic("g", { class: className }, ...paths);
  return {
    root,
    update({ path, broken }) {
      setAttribute(root, "data-broken", broken ? "" : null);
      for (const one of paths) setAttribute(one, "d", path);
    },
  };
}

function caption() {
  const root = graphic("text", { class: "rope-label" });
  return {
    root,
    update({ label, text, broken }) {
      setAttribute(root, "data-broken", broken ? "" : null);
      setAttribute(root, "x", label.x);
      setAttribute(root, "y", label.y);
      setAttribute(root, "text-anchor", label.anchor);
      setText(root, text);
    },
  };
}

function knot() {
  const tug = graphic("line", { class: "tug" });
  const ring = graphic("circle", { class: "knot", r: 6 });
  const root = graphic("g", {}, tug, ring);
  return {
    root,
    update({ x, y, tugX, tugY, tone, alive }) {
      setAttribute(root, "data-tone", tone);
      setAttribute(root, "data-gone", alive ? null : "");
      for (const [name, value] of Object.entries({ x1: x, y1: y, x2: tugX, y2: tugY })) {
        setAttribute(tug, name, value);
      }
      setAttribute(ring, "cx", x);
      setAttribute(ring, "cy", y);
    },
  };
}

/** The drawing, a child of the element `area` whose corner is the origin of its coordinates. */
export function ropeDrawing(area) {
  const back = graphic("g");
  const ropes = graphic("g");
  const knots = graphic("g");
  const labels = graphic("g");
  const root = graphic("svg", { class: "rope", "aria-hidden": "true" }, back, ropes, knots, labels);
  area.prepend(root);

  /** `cards`: the elements in stage order; `view`: see `clusterView`. */
  function draw(view, cards, columns) {
    const { width, height } = area.getBoundingClientRect();
    setAttribute(root, "width", Math.round(width));
    setAttribute(root, "height", Math.round(height));
    setAttribute(root, "data-taut", view.isTaut ? "" : null);
    setAttribute(root, "data-flowing", view.isFlowing ? "" : null);
    const boxes = cards.map((card) => ({
      x: card.offsetLeft, y: card.offsetTop, width: card.offsetWidth, height: card.offsetHeight,
    }));
    const rope = ropePast(boxes, columns, width);
    const drawn = rope.hops.map((hop, index) => (
      { key: `hop ${index}`, ...view.hops[index], ...hop }));
    const returning = rope.back ? [{ key: "return", ...view.hops.at(-1), ...rope.back }] : [];
    keyed(ropes, drawn, (hop) => hop.key, () => strand("hop"));
    keyed(back, returning, (hop) => hop.key, () => strand("hop return"));
    const named = [...drawn, ...returning].map((hop) => {
      const text = hopLabel(hop);
      return { ...hop, text: hop.isReturn ? ["return", text].filter(Boolean).join(" · ") : text };
    });
    keyed(labels, named, (hop) => hop.key, caption);
    const tied = rope.knots.map((one, index) => ({ ...view.hitched[index], ...one }));
    keyed(knots, tied, (one) => one.id, knot);
  }

  return { draw };
}
