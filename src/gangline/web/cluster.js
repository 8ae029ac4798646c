// The cluster drawn: cards on the rope in stage order, nodes apart below, live numbers above.

import { element, keyed, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";
import { cellOf, columnsFor, spacing } from "./geometry.js";
import { nodeCard } from "./nodes.js";
import { hopLabel, ropeDrawing } from "./rope.js";
import { sparkline } from "./spark.js";

const MIN_WIDTH = { few: 208, many: 156 }; // of a card, in pixels
const MANY = 8;
const SAMPLE_MS = 1_000;

function summaryOf(view, model) {
  const nodes = format.plural(view.nAlive, "node");
  const gone = view.nGone > 0 ? `, ${view.nGone} gone` : "";
  const free = `${format.bytes(view.freeBytes)} free`;
  if (model === null) return `${nodes}${gone} · ${free}`;
  const n = model.stages.length;
  const place = n === 1 ? "on one node" : `split over ${n} nodes`;
  const split = model.state === "ready" ? place : model.state;
  return `${nodes}${gone} · ${free} · ${model.id} ${split}`;
}

/** Hops in words, for those who do not see the drawing. */
function hopText(hop, names) {
  if (!hop) return "";
  const measured = hopLabel(hop);
  return `Then to ${names.get(hop.to) ?? hop.to}${measured ? `: ${measured}` : ""}.`;
}

/** Fills the section with the given parts; returns `update(view, model)`. */
export function clusterSection(section) {
  const find = (selector) => section.querySelector(selector);
  const summary = find(".summary");
  const numbers = find(".numbers");
  const area = find(".rope-area");
  const hitched = find(".hitched");
  const apart = find(".apart");
  const apartTitle = find(".apart-title");
  const rope = ropeDrawing(area);
  const spark = sparkline();
  find(".spark-place").append(spark.root);
  let shown = null;

  function lay() {
    if (shown === null) return;
    const { view } = shown;
    const count = view.hitched.length;
    const minWidth = count > MANY ? MIN_WIDTH.many : MIN_WIDTH.few;
    const columns = columnsFor(count, area.clientWidth, minWidth);
    const room = spacing(count, columns);
    for (const [name, value] of Object.entries({
      "--columns": columns, "--row-gap": `${room.rowGap}px`, "--top": `${room.top}px`,
      "--left": `${room.left}px`, "--right": `${room.right}px`, "--bottom": `${room.bottom}px`,
    })) hitched.style.setProperty(name, value);
    setAttribute(hitched, "data-many", count > MANY ? "" : null);
    [...hitched.children].forEach((card, index) => {
      const { row, column } = cellOf(index, columns);
      card.style.setProperty("grid-area", `${row} / ${column}`);
    });
    rope.draw(view, [...hitched.children], columns);
  }

  function update(view, model) {
    shown = { view };
    const names = new Map([...view.hitched, ...view.apart].map((node) => [node.id, node.name]));
    setText(summary, summaryOf(view, model));
    find(".live").hidden = model === null;
    setText(find(".rate"), format.figure(view.tokensPerS));
    setText(find(".active"), format.figure(view.lanesActive));
    setText(find(".waiting"), format.figure(view.lanesWaiting));
    setAttribute(numbers, "data-flowing", view.isFlowing ? "" : null);
    const cards = view.hitched.map((node, index) => (
      { ...node, hopText: hopText(view.hops[index], names) }));
    keyed(hitched, cards, (node) => node.id, nodeCard);
    area.hidden = cards.length === 0;
    keyed(apart, view.apart, (node) => node.id, nodeCard);
    apart.hidden = view.apart.length === 0;
    apartTitle.hidden = view.apart.length === 0;
    setText(apartTitle, model === null ? "Ready to be hitched" : "Not on the rope");
    lay();
  }

  new ResizeObserver(lay).observe(area);
  setInterval(() => spark.push(shown?.view.tokensPerS), SAMPLE_MS);
  return { update };
}
