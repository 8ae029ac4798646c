// Models: those that the cluster runs, with their plan and why it is so, and those it could load.

import { call } from "./ask.js";
import { element, keyed, setAttribute, setText } from "./dom.js";
import * as format from "./format.js";
import { layerStrip } from "./nodes.js";

function failure() {
  const message = element("p", { class: "failure-message" });
  const hint = element("p", { class: "failure-hint" });
  const root = element("div", { class: "failure", role: "alert", hidden: true }, message, hint);
  return {
    root,
    show(error) {
      root.hidden = error === null;
      setText(message, error?.message ?? "");
      setText(hint, error?.hint ?? "");
    },
  };
}

/** A button that runs `task` once at a time and shows in `failed` why it did not work. */
function actionButton(text, className, failed, task) {
  const button = element("button", { type: "button", class: className, text });
  button.addEventListener("click", async () => {
    button.disabled = true;
    failed.show(null);
    try {
      await task();
    } catch (error) {
      failed.show(error);
    } finally {
      button.disabled = false;
    }
  });
  return button;
}

const planOf = (id, spread) => (
  call("GET", `/cluster/plan?${new URLSearchParams({ model: id, spread: spread ? "1" : "0" })}`));
const unload = (id) => call("DELETE", `/cluster/models/${encodeURIComponent(id)}`);
const load = (id, spread) => call("POST", "/cluster/models", { model: id, spread });

function planRow() {
  const dot = element("span", { class: "swatch", "aria-hidden": "true" });
  const name = element("span", { class: "plan-node" });
  const held = element("span", { class: "plan-span" });
  const why = element("span", { class: "plan-why" });
  const root = element("li", {}, dot, name, held, why);
  return {
    root,
    update(row) {
      setAttribute(dot, "data-tone", row.tone);
      setText(name, row.name);
      setText(held, row.held);
      setText(why, row.why);
    },
  };
}

function planRows(model) {
  const taken = model.stages.map((stage) => ({
    key: `${stage.name} ${stage.role}`,
    name: stage.name,
    tone: stage.tone,
    held: format.span(stage.span),
    why: stage.why || stage.role,
  }));
  const left = model.leftOut.map((one) => ({
    key: `${one.name} left out`, name: one.name, tone: null, held: "left out", why: one.why,
  }));
  return [...taken, ...left];
}

function factsOf(model) {
  const parts = [format.plural(model.nLayers, "layer")];
  if (model.context > 0) parts.push(`context ${model.context}`);
  if (model.lanes > 0) parts.push(format.plural(model.lanes, "lane"));
  if (model.stats) parts.push(`${model.stats.tokens_total.toLocaleString("en")} tokens so far`);
  return parts.join(" · ");
}

/** One answer's speed as it was predicted and as it was measured; "" where it was neither. */
function paceOf({ prediction, stats }) {
  const parts = [];
  if (prediction) {
    const { decode_tps: promised, error } = prediction;
    parts.push(`${format.rate(promised)} ± ${format.percent(error)} predicted`);
  }
  if (stats?.decode_tps) parts.push(`${format.rate(stats.decode_tps)} measured`);
  return parts.length > 0 ? `one answer: ${parts.join(", ")}` : "";
}

/** Unloading stops everybody's answers, so it is asked twice, in place. */
function unloadButtons(id, failed) {
  const first = element("button", { type: "button", class: "quiet", text: "Unload" });
  const sure = actionButton(`Unload ${id} now`, "danger", failed, () => unload(id));
  const keep = element("button", { type: "button", class: "quiet", text: "Keep it" });
  const asked = element("span", { class: "asked", hidden: true }, sure, keep);
  const ask = (isAsked) => {
    first.hidden = isAsked;
    asked.hidden = !isAsked;
    (isAsked ? keep : first).focus();
  };
  first.addEventListener("click", () => ask(true));
  keep.addEventListener("click", () => ask(false));
  return [first, asked];
}

function runningModel({ id }, actions) {
  const name = element("button", {
    type: "button", class: "model-name", title: "Show on the rope and talk to it",
    on: { click: () => actions.follow(id) },
  });
  name.textContent = id;
  const state = element("span", { class: "state" });
  const facts = element("span", { class: "model-facts" });
  const pace = element("span", { class: "model-facts" });
  const bar = element("progress", { max: 1, "aria-label": `Loading ${id}` });
  const strip = element("span", { class: "model-strip" });
  const rows = element("ul", { class: "plan" });
  const summary = element("summary", { text: "Why these nodes?" });
  const plan = element("details", { open: true }, summary, rows);
  const reason = element("div", { class: "failure" });
  const failed = failure();
  let wasSplit = false;
  const retry = actionButton("Load again", "quiet", failed, () => load(id, wasSplit));
  const root = element("li", { class: "card model" },
    element("div", { class: "row" }, name, state,
      element("span", { class: "buttons" }, retry, ...unloadButtons(id, failed))),
    facts, pace, bar, strip, reason, failed.root, plan);
  let drawn = "";
  return {
    root,
    update(model) {
      setAttribute(root, "data-state", model.state);
      setAttribute(root, "data-followed", model.isFollowed ? "" : null);
      setAttribute(name, "aria-pressed", String(model.isFollowed));
      const isLoading = model.state === "loading" || model.state === "recovering";
      setText(state, isLoading ? `${model.state} ${format.percent(model.progress)}` : model.state);
      setText(facts, factsOf(model));
      setText(pace, paceOf(model));
      pace.hidden = pace.textContent === "";
      bar.hidden = !isLoading;
      bar.value = model.progress;
      const shape = JSON.stringify(model.segments);
      if (shape !== drawn) strip.replaceChildren(layerStrip(model.segments, model.nLayers));
      drawn = shape;
      reason.hidden = model.reason === "";
      setText(reason, model.reason);
      retry.hidden = model.state !== "failed";
      wasSplit = model.stages.length > 1;
      const shown = planRows(model);
      keyed(rows, shown, (row) => row.key, planRow);
      plan.hidden = shown.length === 0;
    },
  };
}

function storedFacts({ sizeBytes, nLayers, family, on }) {
  const where = on.length > 3 ? format.plural(on.length, "node") : on.join(", ");
  const parts = [format.bytes(sizeBytes), format.plural(nLayers, "layer"), family, `on ${where}`];
  return parts.join(" · ");
}

function storedModel({ id }, actions) {
  const name = element("span", { class: "stored-name", text: id });
  const facts = element("span", { class: "model-facts" });
  const failed = failure();
  const spread = element("input", { type: "checkbox" });
  const choice = element("label", { class: "choice" }, spread, "spread over all nodes");
  const rows = element("ul", {
    class: "plan", hidden: true, "aria-label": `What loading ${id} would do`,
  });
  const pace = element("p", { class: "model-facts", hidden: true });
  const showPlan = async () => {
    const found = await planOf(id, spread.checked);
    const plan = actions.explain(found);
    setText(pace, paceOf(found));
    pace.hidden = pace.textContent === "";
    keyed(rows, planRows(plan), (row) => row.key, planRow);
    rows.hidden = false;
  };
  const preview = actionButton("Plan", "quiet", failed, showPlan);
  preview.setAttribute("aria-label", `Show what loading ${id} would do`);
  const button = actionButton("Load", "primary", failed, () => load(id, spread.checked));
  button.setAttribute("aria-label", `Load ${id}`);
  // A plan that is shown follows the choice.
  spread.addEventListener("change", () => {
    if (!rows.hidden) preview.click();
  });
  const root = element("li", { class: "card stored" },
    element("div", { class: "row" }, element("div", { class: "stored-what" }, name, facts),
      element("span", { class: "buttons" }, choice, preview, button)),
    failed.root, pace, rows);
  return {
    root,
    update(model) {
      setText(facts, model.supported ? storedFacts(model)
        : model.reason || `${model.family} is not supported`);
      preview.hidden = !model.supported;
      button.hidden = !model.supported;
      choice.hidden = !model.supported || model.nNodes < 2;
    },
  };
}

/** Fills the section; `actions`: `follow(id)` shows a model, `explain(plan)` names its nodes. */
export function modelsSection(section, actions) {
  const running = section.querySelector(".running");
  const stored = section.querySelector(".loadable");
  const storedTitle = section.querySelector(".loadable-title");
  const none = section.querySelector(".no-models");

  function update({ models, loadable, followedId, nNodes }) {
    const shown = models.map((model) => ({ ...model, isFollowed: model.id === followedId }));
    keyed(running, shown, (model) => model.id, (model) => runningModel(model, actions));
    keyed(stored, loadable.map((model) => ({ ...model, nNodes })), (model) => model.id,
      (model) => storedModel(model, actions));
    running.hidden = models.length === 0;
    stored.hidden = loadable.length === 0;
    storedTitle.hidden = loadable.length === 0;
    none.hidden = models.length + loadable.length > 0;
  }

  return { update };
}
