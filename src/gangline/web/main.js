// Puts the page together: the state comes in, each section shows its part of it.

import { chatSection } from "./chat.js";
import { clusterSection } from "./cluster.js";
import { element, setAttribute, setText } from "./dom.js";
import { watchCluster } from "./events.js";
import { modelsSection } from "./models.js";
import { recall, remember } from "./remember.js";
import {
  clusterView, followed, loadable, modelViews, nodeName, otherDoors, planView,
} from "./state.js";

const CONNECTIONS = {
  "": "connecting",
  live: "live",
  polling: "live, by asking",
  lost: "connection lost",
};

const page = {
  connection: document.querySelector(".connection"),
  cluster: document.querySelector(".cluster-name"),
  lost: document.querySelector(".lost"),
  doors: document.querySelector(".doors"),
  doorsTitle: document.querySelector(".doors-title"),
  theme: document.querySelector(".theme"),
};

let state = null;
let connection = "";
let wanted = recall("model", "");
let isAnswering = false; // known here before the head's next report, which comes once a second

function choose(id) {
  wanted = id;
  remember("model", id);
  render();
}

const cluster = clusterSection(document.querySelector("#cluster"));
const models = modelsSection(document.querySelector("#models"), {
  follow: choose,
  explain: (plan) => planView(state, plan),
});
const chat = chatSection(document.querySelector("#chat"), {
  choose,
  flow(isFlowing) {
    if (isFlowing === isAnswering) return;
    isAnswering = isFlowing;
    render();
  },
  nameOf: (id) => (state === null ? id : nodeName(state, id)),
});

function renderConnection() {
  const isLost = connection === "lost";
  setText(page.connection.querySelector(".word"), CONNECTIONS[connection]);
  setAttribute(page.connection, "data-connection", connection || "connecting");
  document.body.toggleAttribute("data-lost", isLost);
  // An alert is spoken when it appears: it is filled first, and not touched again until it goes.
  if (page.lost.hidden !== isLost) return;
  const doors = state === null ? [] : otherDoors(state, location.origin);
  page.doors.replaceChildren(...doors.map((door) => (
    element("a", { href: `${door.api}/`, text: door.name }))));
  page.doorsTitle.hidden = doors.length === 0;
  page.lost.hidden = !isLost;
}

/** What is no longer known to be true is not shown as live. */
function unlive(view) {
  return { ...view, isFlowing: false, tokensPerS: null, lanesActive: null, lanesWaiting: null };
}

function render() {
  renderConnection();
  if (state === null) return;
  const model = followed(state, wanted);
  const views = modelViews(state);
  setText(page.cluster, state.cluster);
  document.title = `${state.cluster === "gangline" ? "" : `${state.cluster} · `}Gangline`;
  const view = clusterView(state, model);
  view.isFlowing ||= isAnswering && view.isTaut;
  cluster.update(connection === "lost" ? unlive(view) : view, model);
  models.update({
    models: views, loadable: loadable(state), followedId: model?.id, nNodes: view.nAlive,
  });
  chat.update({ models: views, chosen: model?.id, isLost: connection === "lost" });
  document.body.toggleAttribute("data-loaded", true);
}

watchCluster({
  onState(next) {
    state = next;
    render();
  },
  onConnection(next) {
    connection = next;
    render();
  },
});

// ---- theme: as the system has it, light, or dark -------------------------------------------
const THEMES = ["auto", "light", "dark"];

function showTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  page.theme.dataset.shows = theme;
  page.theme.setAttribute("aria-label", `Theme: ${theme}`);
  page.theme.title = `Theme: ${theme}`;
}

page.theme.addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(recall("theme", "auto")) + 1) % THEMES.length];
  remember("theme", next);
  showTheme(next);
});
showTheme(recall("theme", "auto"));
