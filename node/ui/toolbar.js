// What is above every table: the filter box, "only pinned", and how much is shown.

import { h, setText, setAttribute } from "./dom.js";
import { count } from "./format.js";
import { store, setOnlyPinned } from "./store.js";

/// Makes it; `changed` is called when the filter was. `more`: what a view adds.
export function toolbar(label, changed, ...more) {
  const input = h("input", { type: "search", placeholder: label, "aria-label": label, autocomplete: "off", spellcheck: "false", on: { input: changed } });
  const summary = h("span", { class: "summary", role: "status" });
  const box = h("input", { type: "checkbox", on: { change: () => setOnlyPinned(box.checked) } });
  const words = h("span");
  const pinned = h("label", { class: "pinned-only", title: "Follow the pinned services only; the stream sends nothing else" }, box, words);
  return {
    element: h("div", { class: "toolbar" }, input, pinned, more, summary),
    input,
    text: () => input.value.trim().toLowerCase(),
    say(text) {
      setText(summary, text);
      box.checked = store.onlyPinned;
      setAttribute(box, "disabled", store.pins.size === 0);
      setText(words, `Only pinned (${count(store.pins.size)})`);
    },
  };
}
