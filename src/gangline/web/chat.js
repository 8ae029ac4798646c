// The chat: questions to the chosen model, answers as they stream. The turns
// outlive a reload of this tab, and nothing else.

import { ask, messagesFor, requestFor } from "./ask.js";
import { composer } from "./composer.js";
import { element, setAttribute, setText } from "./dom.js";
import { settingsDrawer } from "./drawer.js";
import * as format from "./format.js";
import { turnView } from "./message.js";
import { recallInTab, rememberInTab } from "./remember.js";

const STARTERS = {
  demo: [
    "What is 17 + 25?", "Spell apple", "Reverse stone", "What is the capital of France?",
    "What is Gangline?", "Tell me a long story",
  ],
  other: [
    "What can you help me with?", "Explain how a rope holds a knot",
    "Write a haiku about winter", "Tell me a long story",
  ],
};

const LEAVING_MS = 5000; // after `beforeunload`, which a download sends as well, without leaving
const NEAR_BOTTOM = 48; // pixels within which the reader counts as being at the end

/** Runs `change`; who was at the end of the log (or on small screens of the page) stays there. */
function keepingBottom(log, change) {
  const box = scrollerOf(log);
  const atBottom = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR_BOTTOM;
  change();
  if (atBottom) box.scrollTop = box.scrollHeight;
}

function scrollerOf(log) {
  return getComputedStyle(log).overflowY === "auto" ? log : document.scrollingElement;
}

/**
 * Asks `question` and fills `turn` as the answer comes; `changed()` after each change that shows.
 * Ends with the answer, an error or a stop in `turn`; never throws. `isLeaving()` tells whether the
 * page is being left: a browser may break the connection before it says `pagehide`.
 */
async function runTurn(turn, request, { signal, changed, isLeaving }) {
  const startMs = performance.now();
  let firstMs = null;
  let nPieces = 0;
  try {
    turn.measured = await ask(request, {
      signal,
      onText(text) {
        firstMs ??= performance.now();
        nPieces += 1;
        turn.answer = text;
        changed();
      },
    });
  } catch (error) {
    turn.isStopped = signal.aborted || isLeaving();
    if (!turn.isStopped) {
      turn.error = { message: error.message, hint: error.hint ?? "", code: error.code ?? "" };
    }
    if (firstMs !== null) {
      const spanMs = performance.now() - firstMs;
      turn.measured = {
        ttftMs: firstMs - startMs, nTokens: nPieces, finishReason: null, nodes: null,
        tokensPerS: spanMs > 0 ? (nPieces - 1) * 1000 / spanMs : null,
      };
    }
  }
}

const NOTICES = {
  loading: ({ id, progress }) => `${id} is loading: ${format.percent(progress)}`,
  recovering: ({ id }) => `${id} is recovering: a machine was lost`,
  failed: ({ id }) => `${id} has failed. See Models for why.`,
  unloading: ({ id }) => `${id} is being unloaded`,
};

function noticeOf(model, isLost) {
  if (isLost) return "The node does not answer. What you write stays here.";
  if (model === null) return "No model is running. Load one under Models.";
  return NOTICES[model.state]?.(model) ?? "";
}

/** What is kept of the turns; an answer that still streams is kept as one that was stopped. */
function keepTurns(turns) {
  rememberInTab("turns", turns.map(({ question, answer, error, measured, isRunning, isStopped }) => (
    { question, answer, error, measured, isStopped: isStopped || isRunning })));
}

/** The turns before a reload; a foreign or older value is dropped. */
function keptTurns() {
  const kept = recallInTab("turns", []);
  if (!Array.isArray(kept)) return [];
  return kept
    .filter((one) => typeof one?.question === "string" && typeof one?.answer === "string")
    .map((one) => ({ error: null, measured: null, isStopped: false, ...one, isRunning: false }));
}

/** `actions`: `choose(id)` of a model, `flow(isFlowing)` of tokens to here, `nameOf(node id)`. */
export function chatSection(section, actions) {
  const find = (selector) => section.querySelector(selector);
  const log = find(".log");
  const empty = find(".empty");
  const emptyTitle = find(".empty-title");
  const starters = find(".starters");
  const notice = find(".notice");
  const choice = find("#model");
  const spoken = find(".spoken");
  const settings = settingsDrawer(section);
  const writing = composer(section, { submit, stop: () => running?.abort() });

  let turns = [];
  let running = null; // AbortController of the answer that streams
  let model = null; // view of the chosen model
  let shownStarters = null;
  let isOpen = false; // the model is ready, and the node answers
  let leftMs = -Infinity; // when the page was last about to be left

  function redraw() {
    for (const turn of turns) turn.view.update(turn === turns.at(-1));
    empty.hidden = turns.length > 0;
    writing.update(isOpen, running !== null);
  }

  async function answer(turn, before) {
    running = new AbortController();
    let frame = 0;
    const { system, temperature, maxTokens } = settings.values();
    const messages = messagesFor(system, before, turn.question);
    setText(spoken, "Answering.");
    redraw();
    scrollerOf(log).scrollTop = scrollerOf(log).scrollHeight;
    await runTurn(turn, requestFor(model.id, messages, { temperature, maxTokens }), {
      signal: running.signal,
      isLeaving: () => performance.now() - leftMs < LEAVING_MS,
      changed() {
        actions.flow(true);
        // Drawn once per frame, however many tokens arrive.
        frame ||= requestAnimationFrame(() => {
          frame = 0;
          keepingBottom(log, () => turn.view.update(true));
        });
      },
    });
    cancelAnimationFrame(frame);
    if (turn.measured?.nodes) turn.measured.nodes = turn.measured.nodes.map(actions.nameOf);
    turn.isRunning = false;
    running = null;
    actions.flow(false);
    keepTurns(turns);
    keepingBottom(log, redraw);
    // Said once and whole: a live region that grows word by word cannot be listened to.
    setText(spoken, turn.error ? "" : `${turn.isStopped ? "Stopped. " : ""}${turn.answer}`);
  }

  function submit(text) {
    const question = text.trim();
    if (running || !isOpen || question === "") return;
    const before = turns;
    const turn = {
      question, answer: "", error: null, measured: null, isRunning: true, isStopped: false,
    };
    show(turn);
    void answer(turn, before);
  }

  function show(turn) {
    turn.view = turnView(turn, { retry, edit, restart });
    turns = [...turns, turn];
    log.append(turn.view.root);
  }

  function dropLast() {
    const last = turns.at(-1);
    last.view.root.remove();
    turns = turns.slice(0, -1);
    keepTurns(turns);
    return last;
  }

  function retry() {
    if (running || !isOpen) return;
    submit(dropLast().question);
    writing.focus();
  }

  function edit() {
    if (running) return;
    writing.write(dropLast().question);
    redraw();
  }

  function restart() {
    running?.abort();
    for (const turn of turns) turn.view.root.remove();
    turns = [];
    keepTurns(turns);
    setText(spoken, "New chat.");
    redraw();
    writing.focus();
  }

  function showChoice(ids) {
    const shown = [...choice.options].map((option) => option.value);
    if (ids.join("\n") !== shown.join("\n")) {
      choice.replaceChildren(...ids.map((id) => element("option", { value: id, text: id })));
    }
    choice.disabled = ids.length === 0;
    choice.hidden = ids.length === 0;
    if (model && choice.value !== model.id) choice.value = model.id;
  }

  function showStarters(questions) {
    if (questions !== shownStarters) {
      starters.replaceChildren(...questions.map((text) => element("button", {
        type: "button", class: "starter", text, on: { click: () => submit(text) },
      })));
      shownStarters = questions;
    }
    for (const starter of starters.children) starter.disabled = !isOpen;
    starters.hidden = model === null;
    setText(emptyTitle, model === null
      ? "Load a model, then ask it something" : "Ask the cluster something");
  }

  function update({ models, chosen, isLost }) {
    model = models.find((one) => one.id === chosen) ?? null;
    isOpen = model?.state === "ready" && !isLost;
    showChoice(models.map((one) => one.id));
    showStarters(STARTERS[model?.id] ?? STARTERS.other);
    setText(notice, noticeOf(model, isLost));
    notice.hidden = notice.textContent === "";
    setAttribute(section, "data-ready", isOpen ? "" : null);
    writing.update(isOpen, running !== null);
  }

  find(".new-chat").addEventListener("click", restart);
  choice.addEventListener("change", () => actions.choose(choice.value));
  window.addEventListener("beforeunload", () => {
    leftMs = performance.now();
  });
  window.addEventListener("pagehide", () => {
    running?.abort(); // leaving is a stop, not an answer that broke
    keepTurns(turns);
  });
  keptTurns().forEach(show);
  redraw();
  log.scrollTop = log.scrollHeight; // where the page scrolls instead, the browser restores that
  return { update };
}
