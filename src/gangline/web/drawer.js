// The settings of the chat: a drawer that opens below its head; kept for the next visit.

import { setText } from "./dom.js";
import { recall, remember } from "./remember.js";

/** Number in a field, or null where it is empty or no number. */
function numberIn(field) {
  const value = field.value.trim();
  return value === "" || !Number.isFinite(Number(value)) ? null : Number(value);
}

/** Brings a field of a number into its bounds; in words what was changed, or "". */
function bound(field) {
  if (field.validity.badInput) {
    field.value = "";
    return "That is no number.";
  }
  const asked = numberIn(field);
  if (asked === null) return "";
  const within = Math.min(Math.max(asked, Number(field.min)), Number(field.max));
  const value = field.step === "1" ? Math.round(within) : within;
  if (value === asked) return "";
  field.value = String(value);
  const range = `from ${field.min} to ${Number(field.max).toLocaleString("en")}`;
  return `${field.dataset.name} goes ${range}: ${asked} became ${value}.`;
}

/** Wires the drawer in `section`; `values()` gives what is set, null for what is not. */
export function settingsDrawer(section) {
  const drawer = section.querySelector("#settings");
  const toggle = section.querySelector(".settings-toggle");
  const fields = {
    system: section.querySelector("#system"),
    temperature: section.querySelector("#temperature"),
    maxTokens: section.querySelector("#max-tokens"),
  };
  const bounded = section.querySelector(".settings-bounded");
  for (const [name, field] of Object.entries(fields)) {
    field.value = recall(name, field.value);
    if (field.type === "number") bound(field);
    field.addEventListener("change", () => {
      setText(bounded, field.type === "number" ? bound(field) : "");
      bounded.hidden = bounded.textContent === "";
      remember(name, field.value);
    });
  }
  toggle.addEventListener("click", () => {
    drawer.hidden = !drawer.hidden;
    toggle.setAttribute("aria-expanded", String(!drawer.hidden));
    if (!drawer.hidden) fields.system.focus();
  });
  return {
    values: () => ({
      system: fields.system.value.trim(),
      temperature: numberIn(fields.temperature),
      maxTokens: numberIn(fields.maxTokens),
    }),
  };
}
