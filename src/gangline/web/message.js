// One turn of the chat: a question and its answer, with the measurements or the error below it.

import { element, setText } from "./dom.js";
import * as format from "./format.js";
import { render } from "./markdown.js";

/** What stands below an answer, as `[value, words after it, kind]`. */
export function measurements(turn) {
  const { measured } = turn;
  if (!measured) return turn.isStopped ? [["stopped", "", "stopped"]] : [];
  const pairs = [
    [format.milliseconds(measured.ttftMs), "to first token", "ttft"],
    [format.rate(measured.tokensPerS), "", "rate"],
    [format.plural(measured.nTokens, "token"), "", "tokens"],
  ];
  if (measured.nodes?.length) pairs.push([measured.nodes.join(" → "), "", "nodes"]);
  if (measured.finishReason === "length") pairs.push(["cut at the length limit", "", "length"]);
  if (turn.isStopped) pairs.push(["stopped", "", "stopped"]);
  return pairs;
}

/** Copies text; where the clipboard is closed (plain HTTP on a LAN), by way of a selection. */
async function copyText(text) {
  if (navigator.clipboard && window.isSecureContext) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = element("textarea", { class: "unseen", readonly: true });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

function textButton(text, className, listener, label = null) {
  return element("button", {
    type: "button", class: className, text, "aria-label": label, on: { click: listener },
  });
}

function quietButton(text, label, listener) {
  return textButton(text, "quiet small", listener, label);
}

/** `{root, update(turn, isLast)}`; `actions`: `retry`, `edit`, `restart`. */
export function turnView(turn, actions) {
  const question = element("div", { class: "question" });
  const answer = element("div", { class: "answer" });
  const waiting = element("span", { class: "waiting-dots", "aria-hidden": "true" },
    element("i"), element("i"), element("i"));
  const message = element("p", { class: "failure-message" });
  const hint = element("p", { class: "failure-hint" });
  const retry = textButton("Try again", "quiet", actions.retry);
  const restart = textButton("New chat", "quiet", actions.restart);
  const failure = element("div", { class: "failure", role: "alert", hidden: true }, message, hint,
    element("span", { class: "buttons" }, retry, restart));
  const numbers = element("span", { class: "measured" });
  const copy = quietButton("Copy", "Copy the answer", async () => {
    await copyText(turn.answer);
    setText(copy, "Copied");
    copy.addEventListener("blur", () => setText(copy, "Copy"), { once: true });
  });
  const again = quietButton("Regenerate", "Answer this question again", actions.retry);
  const edit = quietButton("Edit", "Edit the question and ask again", actions.edit);
  const foot = element("div", { class: "turn-foot" }, numbers,
    element("span", { class: "buttons" }, copy, again, edit));
  const root = element("article", { class: "turn" },
    element("h3", { class: "unseen", text: "You" }), question,
    element("h3", { class: "unseen", text: "Answer" }), answer, waiting, failure, foot);
  setText(question, turn.question);

  function update(isLast) {
    render(answer, turn.answer);
    root.toggleAttribute("data-running", turn.isRunning);
    waiting.hidden = !turn.isRunning || turn.answer !== "";
    failure.hidden = turn.error === null;
    setText(message, turn.error?.message ?? "");
    setText(hint, turn.error?.hint ?? "");
    hint.hidden = !turn.error?.hint;
    retry.hidden = !isLast;
    restart.hidden = turn.error?.code !== "context_length_exceeded";
    foot.hidden = turn.isRunning || (turn.error !== null && turn.answer === "");
    numbers.replaceChildren(...measurements(turn).map(([value, label, kind]) => (
      element("span", { "data-kind": kind },
        element("b", { text: value }), label ? ` ${label}` : null))));
    copy.hidden = turn.answer === "";
    again.hidden = !isLast || turn.error !== null;
    edit.hidden = !isLast;
  }

  return { root, update };
}
