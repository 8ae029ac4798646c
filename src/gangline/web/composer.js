// Where questions are written: a field that grows, send and stop, and the keys for all of it.

import { setAttribute } from "./dom.js";

/** Wires the form of `section`; `actions`: `submit(question)`, `stop()`. */
export function composer(section, actions) {
  const form = section.querySelector("form");
  const input = section.querySelector("#question");
  const send = section.querySelector(".send");
  const stop = section.querySelector(".stop");
  let isOpen = false; // a question would be answered now
  let isRunning = false; // an answer streams

  function refresh() {
    input.style.setProperty("height", "auto");
    input.style.setProperty("height", `${input.scrollHeight}px`);
    send.disabled = input.value.trim() === "" || !isOpen;
    setAttribute(send, "hidden", isRunning ? "" : null);
    setAttribute(stop, "hidden", isRunning ? null : "");
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (send.disabled || isRunning) return;
    const question = input.value;
    input.value = "";
    refresh();
    actions.submit(question);
  });
  input.addEventListener("input", refresh);
  input.addEventListener("keydown", (event) => {
    // While an input method composes, Enter chooses a character.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  stop.addEventListener("click", () => {
    actions.stop();
    input.focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && isRunning) actions.stop();
    const writes = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (event.key !== "/" || writes || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    input.focus();
  });

  return {
    focus: () => input.focus(),
    /** Puts a question back to be changed. */
    write(question) {
      input.value = question;
      refresh();
      input.focus();
    },
    update(open, running) {
      isOpen = open;
      isRunning = running;
      refresh();
    },
  };
}
