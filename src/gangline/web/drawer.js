// The settings of the chat: a drawer that opens below its head; kept for the next visit.

import { recall, remember } from "./remember.js";

/** Number in a field, or null where it is empty or no number. */
function numberIn(field) {
  const value = field.value.trim();
  return value === "" || !Number.isFinite(Number(value)) ? null : Number(value);
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
  for (const [name, field] of Object.entries(fields)) {
    field.value = recall(name, field.value);
    field.addEventListener("change", () => remember(name, field.value));
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
