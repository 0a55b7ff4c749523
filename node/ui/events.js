// The view of events: the history as it is made, with a pause and filters.

import { h, button, setText, setAttribute } from "./dom.js";
import { count, plural, setTime } from "./format.js";
import { Rows, textCell } from "./rows.js";
import { store, followKeys } from "./store.js";
import { cause, describe, facts } from "./panel.js";
import { toolbar } from "./toolbar.js";

const KINDS = [
  ["", "All kinds"], ["service.", "Services"], ["check.", "Checks"], ["node.", "Nodes"], ["server.", "Servers"], ["token.", "Tokens"], ["policy.", "Policies"], ["role.", "Roles"],
  ["leader.", "Leaders"], ["session.", "Sessions"], ["lock.", "Locks"], ["key.", "Keys"], ["maintenance.", "Maintenance"],
];

function timeCell() {
  const shown = h("time");
  return [h("div", null, shown), (record) => setTime(shown, record.At)];
}

function eventPanel(record) {
  const names = { Node: "Node", Service: "Service", ID: "Instance", Check: "Check", Key: "Key", Session: "Session", From: "Before", To: "After", Detail: "Detail" };
  const time = h("time");
  setTime(time, record.At);
  return {
    kind: "Event", title: record.Kind,
    element: h("div", { class: "panel-body" },
      facts([["Record", count(record.Seq)], ["Time", time], ["Index", count(record.Index)], ...Object.entries(names).map(([member, name]) => [name, record[member]])]),
      h("h3", null, "Cause"), facts(Object.entries(record.Cause)),
      h("h3", null, "Record"), h("pre", { class: "json" }, JSON.stringify(record, null, 2))),
  };
}

/// Makes the view.
export function events(root, go, panel) {
  let paused = null;
  const kind = h("select", { "aria-label": "Kind", on: { change: () => view.draw() } }, KINDS.map(([value, text]) => h("option", { value }, text)));
  const keys = h("input", { type: "checkbox", on: { change: () => followKeys(keys.checked) } });
  keys.checked = store.withKeys;
  const pause = button("Pause", () => {
    paused = paused === null ? { events: [...store.events], seq: store.events.at(-1)?.Seq ?? 0 } : null;
    view.draw();
  }, { "data-act": "pause", "aria-pressed": "false" });
  const bar = toolbar("Filter events", () => view.draw(), kind, h("label", { title: "Changes of keys and locks are many, so they are sent only if you want them" }, keys, "Keys and locks"), pause);
  const rows = new Rows({
    name: "events", label: "Events",
    key: (record) => String(record.Seq),
    className: ({ To }) => (To === "critical" || To === "warning" ? To : ""),
    open: (record) => panel.show(eventPanel(record)),
    columns: [
      { id: "seq", title: "Record", make: textCell((record) => count(record.Seq)) },
      { id: "time", title: "Time", make: timeCell },
      { id: "what", title: "What", make: textCell(describe) },
      { id: "service", title: "Service", make: textCell((record) => record.Service ?? "") },
      { id: "node", title: "Node", make: textCell((record) => record.Node ?? "") },
      { id: "cause", title: "Cause", make: textCell((record) => cause(record.Cause)) },
    ],
  });
  root.append(bar.element, rows.element);
  const view = {
    filter: bar.input,
    draw() {
      const wanted = bar.text();
      const from = paused?.events ?? store.events;
      const matches = (record) => record.Kind.startsWith(kind.value) &&
        (wanted === "" || `${describe(record)} ${record.Service ?? ""} ${record.ID ?? ""} ${record.Node ?? ""} ${cause(record.Cause)}`.toLowerCase().includes(wanted));
      const shown = from.filter(matches).reverse();
      const newer = paused === null ? 0 : store.events.filter(({ Seq }) => Seq > paused.seq).length;
      setText(pause, paused === null ? "Pause" : `Resume (${count(newer)} new)`);
      setAttribute(pause, "aria-pressed", String(paused !== null));
      bar.say(plural(shown.length, "event"));
      rows.set(shown, store.complete ? "Nothing has happened that matches." : "Loading …");
    },
  };
  return view;
}
