// The view of sessions, and of the locks that they hold.

import { h, button } from "./dom.js";
import { plural, span, milliseconds } from "./format.js";
import { ask, get, path, Refused } from "./members.js";
import { Rows, textCell } from "./rows.js";
import { store } from "./store.js";
import { confirm, notice } from "./dialog.js";
import { facts, loaded, timeline } from "./panel.js";
import { toolbar } from "./toolbar.js";

const EVERY_MS = 3_000;
const RECORDS_MAX = 1_000;
const NANOS_PER_MS = 1_000_000;

/// Who holds which key, as the history of locks tells.
const holders = new Map();
let seen = 0;

async function readLocks() {
  for (;;) {
    const records = await get(`/v1/quorate/history?kind=lock.&since=${seen}&limit=${RECORDS_MAX}`);
    for (const { Seq, Kind, Key, Session } of records) {
      seen = Seq;
      if (Kind === "lock.acquired") holders.set(Key, Session);
      else holders.delete(Key);
    }
    if (records.length < RECORDS_MAX) return;
  }
}

const keysOf = (session) => [...holders].filter(([, holder]) => holder === session.ID).map(([key]) => key).sort();

function sessionPanel(session, panel, changed) {
  const explained = loaded(async () => {
    const told = await get(path("/v1/quorate/explain/session/", session.ID));
    return [h("p", { class: "why" }, told.Why), told.Next && h("p", { class: "next" }, told.Next),
      h("h3", null, "What happened"), timeline(told.Timeline)].filter(Boolean);
  });
  const destroy = async () => {
    const keys = keysOf(session);
    const sure = await confirm({
      title: "Destroy this session?",
      text: keys.length === 0 ? "It holds no locks." : `Its locks (${keys.join(", ")}) are ${session.Behavior === "delete" ? "deleted" : "released"}; its owner has to begin anew.`,
      act: "Destroy",
    });
    if (sure === null) return;
    try {
      await ask("PUT", path("/v1/session/destroy/", session.ID));
      notice("action", "passing", `Session ${session.Name || session.ID} was destroyed`);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      notice("action", "critical", error.message);
    }
    explained.again();
    changed();
  };
  return {
    kind: "Session", title: session.Name || session.ID,
    element: h("div", { class: "panel-body" }, h("div", { class: "actions" }, button("Destroy", destroy, { class: "danger", "data-act": "destroy" })),
      facts([
        ["ID", session.ID], ["Node", session.Node], ["TTL", session.TTL || "none"], ["Behavior", session.Behavior],
        ["Lock delay", span(session.LockDelay / NANOS_PER_MS)], ["Checks", [...(session.NodeChecks ?? []), ...(session.ServiceChecks ?? []).map(({ ID }) => ID)].join(", ")],
        ["Holds", keysOf(session).join(", ")],
      ]), h("h3", null, "Why"), explained.element),
  };
}

/// Makes the view.
export function sessions(root, go, panel) {
  let all = null;
  const rows = new Rows({
    name: "sessions", label: "Sessions",
    key: (session) => session.ID,
    open: (session) => panel.show(sessionPanel(session, panel, poll)),
    columns: [
      { id: "id", title: "Session", make: textCell((session) => session.ID) },
      { id: "name", title: "Name", make: textCell((session) => session.Name || "-") },
      { id: "node", title: "Node", make: textCell((session) => session.Node) },
      { id: "ttl", title: "TTL", make: textCell((session) => (session.TTL ? span(milliseconds(session.TTL)) : "-")) },
      { id: "behavior", title: "At its end", make: textCell((session) => (session.Behavior === "delete" ? "delete its keys" : "release its locks")) },
      { id: "locks", title: "Locks", make: textCell((session) => keysOf(session).join(", ") || "-") },
    ],
  });
  const bar = toolbar("Filter sessions", () => view.draw());
  bar.element.querySelector(".pinned-only").hidden = true;
  root.append(bar.element, rows.element);

  async function poll() {
    if (document.hidden || store.leader === null) return;
    try {
      const [listed] = await Promise.all([get("/v1/session/list"), readLocks()]);
      all = listed;
      view.draw();
    } catch (error) {
      if (error.status === 410) seen = Number(/\d+/.exec(error.message)?.[0] ?? seen);
      if (!(error instanceof Refused)) throw error;
    }
  }

  const view = {
    filter: bar.input,
    leave: () => clearInterval(timer),
    draw() {
      const wanted = bar.text();
      const shown = (all ?? []).filter((session) => [session.ID, session.Name, session.Node, ...keysOf(session)].join(" ").toLowerCase().includes(wanted));
      bar.say(plural(shown.length, "session"));
      rows.set(shown, all === null ? "Loading …" : "No session matches.");
    },
  };
  const timer = setInterval(poll, EVERY_MS);
  poll();
  return view;
}
