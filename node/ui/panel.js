// The panel at the side: one thing in full.

import { h, setText, icon } from "./dom.js";
import { timeOf } from "./format.js";

/// Makes the panel. What it shows: `{ title, kind, element, draw, tick, close }`.
export function makePanel(root) {
  let shown = null;
  let before = null;
  const panel = {
    show(content) {
      // The focus stays where it is, so that the arrow keys go on in the table.
      if (root.hidden) before = document.activeElement;
      shown?.close?.();
      shown = content;
      const title = h("h2", { id: "panel-title" }, content.title);
      root.replaceChildren(
        h("div", { class: "panel-head" }, h("span", { class: "kind" }, content.kind), title,
          h("button", { type: "button", class: "plain", "aria-label": "Close the panel", on: { click: () => panel.close() } }, icon("close"))),
        content.element);
      root.setAttribute("aria-labelledby", "panel-title");
      root.hidden = false;
      content.draw?.();
    },
    close() {
      if (root.hidden) return;
      const hadFocus = root.contains(document.activeElement);
      shown?.close?.();
      shown = null;
      root.hidden = true;
      root.replaceChildren();
      if (hadFocus) before?.focus?.({ preventScroll: true });
    },
    draw: () => shown?.draw?.(),
    tick: () => shown?.tick?.(),
  };
  return panel;
}

/// A list of names and values; values are texts or elements.
export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));
}

/// Records of the history as a list, the newest first.
export function timeline(records) {
  const items = [...records].reverse().map((record) => h("li", { class: record.To || "plain" },
    timeOf(record.At), h("span", { class: "what" }, describe(record)), h("span", { class: "cause" }, cause(record.Cause))));
  return h("ol", { class: "timeline" }, items);
}

/// What a record says, without its time and cause.
export function describe(record) {
  const change = record.From || record.To ? ` ${record.From || "new"} → ${record.To || "gone"}` : "";
  const subject = record.Key || record.Check || record.Name || record.ID || record.Service || record.Session || record.Node || "";
  const holder = record.Holder ? ` of ${record.Holder}${record.Reason ? `: ${record.Reason}` : ""}` : "";
  const detail = record.Detail ? ` (${record.Detail.trim()})` : "";
  return `${record.Kind} ${subject}${change}${holder}${detail}`;
}

/// Why, in a few words.
export function cause({ Kind, Client, Server, Action, AgentClaimed, After, By }) {
  if (Kind === "request") {
    const agent = AgentClaimed ? ` as ${AgentClaimed}` : "";
    return `${Action} from ${Client}${agent}${Server ? ` through ${Server}` : ""}`;
  }
  if (Kind === "silence") return `silent for ${After}`;
  if (Kind === "deregister-after") return `critical for ${After}`;
  if (Kind === "probe") return `probed by ${Server || By}`;
  return Server ? `${Kind} ${Server}` : Kind;
}

/// Makes a part of a panel that is loaded: `load` returns its content.
export function loaded(load) {
  const element = h("div", { class: "loaded" }, h("p", { class: "faint" }, "Loading …"));
  const again = async () => {
    try {
      element.replaceChildren(...[await load()].flat());
    } catch (error) {
      const said = element.querySelector(".failed") ?? h("p", { class: "failed" });
      setText(said, error.message);
      element.replaceChildren(said);
    }
  };
  again();
  return { element, again };
}
