// Questions that must be answered before something is changed, and notices about what happened.

import { h, button, icon } from "./dom.js";

/// Asks whether to go on. Resolves to `null`, or to the text of the field (`""` without one), which is not shown if it
/// is `secret`.
export function confirm({ title, text, act, field, secret = false }) {
  const input = field && h("input", { type: secret ? "password" : "text", autocomplete: "off", "aria-label": field, placeholder: field, maxlength: 256 });
  return new Promise((done) => {
    const end = (value) => {
      dialog.close();
      dialog.remove();
      done(value);
    };
    const yes = button(act, () => end(input?.value ?? ""), { class: "danger", "data-act": "confirm" });
    const dialog = h("dialog", { "aria-label": title, on: { cancel: (event) => { event.preventDefault(); end(null); } } },
      h("h2", null, title), h("p", null, text), input,
      h("div", { class: "actions" }, button("Cancel", () => end(null)), yes));
    input?.addEventListener("keydown", (event) => event.key === "Enter" && yes.click());
    document.body.append(dialog);
    dialog.showModal();
    (input ?? dialog.querySelector("button")).focus();
  });
}

/// Says something above the view until it is closed; a later notice of the same `kind` replaces it.
export function notice(kind, level, ...content) {
  const root = document.getElementById("notices");
  root.querySelector(`[data-kind="${kind}"]`)?.remove();
  const shown = h("div", { class: `notice ${level}`, "data-kind": kind }, icon(level), h("span", null, content),
    h("button", { type: "button", class: "plain", "aria-label": "Close this notice", on: { click: () => shown.remove() } }, icon("close")));
  root.append(shown);
}
