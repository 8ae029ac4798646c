// The card of one node: what the machine is, its memory, and the layers that it holds.

import { element, keyed, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";

const MANY_LAYERS = 48; // above this, single cells would be thinner than the gaps between them

/** A strip of all layers of a model, coloured by owner; those of `holder` stand out. */
export function layerStrip(segments, nLayers, holder = null) {
  const strip = element("span", { class: "strip", "aria-hidden": "true" });
  const perLayer = nLayers <= MANY_LAYERS;
  for (const { node, tone, start, end } of segments) {
    const cells = perLayer ? end - start : 1;
    for (let i = 0; i < cells; i += 1) {
      const isFaint = holder !== null && node !== holder;
      const cell = element("i", { "data-tone": tone, "data-faint": isFaint });
      if (!perLayer) cell.style.setProperty("flex-grow", end - start);
      strip.append(cell);
    }
  }
  return strip;
}

function workerRow(node) {
  const title = element("span", { class: "worker-model" });
  const held = element("span", { class: "worker-held" });
  const strip = element("span", { class: "worker-strip" });
  const foot = element("span", { class: "worker-foot" });
  const root = element("li", { class: "worker" },
    element("span", { class: "row" }, title, held), strip, foot);
  let drawn = "";
  return {
    root,
    update(worker) {
      setText(title, worker.model);
      setText(held, `${format.span(worker.span)} of ${worker.nLayers}`);
      setAttribute(held, "title", `${format.plural(worker.nHeld, "layer")} of ${worker.nLayers}`);
      const shape = JSON.stringify([worker.segments, worker.nLayers]);
      if (shape !== drawn) {
        strip.replaceChildren(layerStrip(worker.segments, worker.nLayers, node.id));
        drawn = shape;
      }
      const progress = worker.state === "loading" ? ` ${format.percent(worker.progress)}` : "";
      const parts = [
        worker.role, worker.state + progress, worker.backend, format.bytes(worker.heldBytes),
      ];
      setText(foot, worker.reason || parts.filter(Boolean).join(" · "));
      setAttribute(root, "data-state", worker.state);
    },
  };
}

function memoryBar() {
  const ours = element("i", { class: "memory-ours" });
  const used = element("i", { class: "memory-used" });
  const label = element("span", { class: "memory-label" });
  const bar = element("span", { class: "memory-bar", "aria-hidden": "true" }, ours, used);
  const root = element("span", { class: "memory" }, bar, label);
  const wide = (part, whole) => `${whole > 0 ? Math.min(100, 100 * part / whole) : 0}%`;
  return {
    root,
    update(memory) {
      root.hidden = memory === null;
      if (memory === null) return;
      ours.style.setProperty("width", wide(memory.oursBytes, memory.totalBytes));
      used.style.setProperty("width", wide(memory.usedBytes - memory.oursBytes, memory.totalBytes));
      const [free, total, byUs, inAll] = [
        memory.freeBytes, memory.totalBytes, memory.oursBytes, memory.usedBytes,
      ].map(format.bytes);
      setText(label, `${free} free of ${total}`);
      setAttribute(root, "title", `${byUs} used by Gangline, ${inAll} in all`);
    },
  };
}

function measured({ machine, readBytesPerS, operationsPerS, measuredAt }) {
  const parts = [machine, `reads ${format.bytes(readBytesPerS)}/s`];
  if (operationsPerS !== null) parts.push(`computes ${format.operations(operationsPerS)}`);
  if (measuredAt !== null) parts.push(`measured ${measuredAt}`);
  return parts.join(" · ");
}

/** The card as `{root, update(node)}`; `node` is one of `clusterView`'s nodes. */
export function nodeCard(first) {
  const dot = element("span", { class: "dot", "aria-hidden": "true" });
  const name = element("a", { class: "node-name", target: "_blank", rel: "noopener" });
  const here = element("span", { class: "tag", text: "this node" });
  const place = element("span", { class: "node-place" });
  const machine = element("span", { class: "node-machine" });
  const memory = memoryBar();
  const workers = element("ul", { class: "workers" });
  const note = element("p", { class: "node-note" });
  const hop = element("span", { class: "unseen" });
  const root = element("li", { class: "card node" },
    element("span", { class: "row" }, dot, name, here, place),
    machine, memory.root, workers, note, hop);
  return {
    root,
    update(node) {
      setAttribute(root, "data-state", node.state);
      setAttribute(root, "data-tone", node.tone);
      setAttribute(root, "data-node", node.id);
      setText(name, node.name);
      const door = node.alive && !node.isHere && node.api ? node.api : null;
      setAttribute(name, "href", door);
      setAttribute(name, "title", door && `Open the page of ${node.name}`);
      here.hidden = !node.isHere;
      setText(place, node.role === "stage" ? `stage ${node.place}` : node.role ?? node.state);
      setText(machine, node.machine);
      setAttribute(machine, "title", node.readBytesPerS === null ? null : measured(node));
      memory.update(node.alive ? node.memory : null);
      keyed(workers, node.workers, (worker) => worker.id, () => workerRow(first));
      workers.hidden = node.workers.length === 0;
      setText(note, node.note);
      note.hidden = node.note === "";
      setText(hop, node.hopText ?? "");
    },
  };
}
