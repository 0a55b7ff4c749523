// One instance in full: why it is as it is, what comes next, its records and its definition; maintenance
// and deregistration.

import { h, badge, button } from "./dom.js";
import { place, span } from "./format.js";
import { ask, get, path, Refused } from "./members.js";
import { store, stateOf, ageOf } from "./store.js";
import { facts, loaded, timeline } from "./panel.js";
import { confirm, notice } from "./dialog.js";

/// An instance's check with this name is there while it is in maintenance.
const MAINTENANCE = "_service_maintenance:";

const agent = (row) => `agent=${encodeURIComponent(row.Node)}`;

/// What the panel shows of the instance with this key.
export function instancePanel(key, panel) {
  const row = store.rows.get(key);
  const head = h("div", { class: "state-line" });
  const actions = h("div", { class: "actions" });
  let shownStatus = "";
  let maintained = null;

  const explained = loaded(async () => {
    const told = await get(`${path("/v1/quorate/explain/service/", row.ID)}?${agent(row)}`);
    const checks = told.Now?.Checks ?? (await checksOf(row));
    maintained = checks.some((check) => check.CheckID === MAINTENANCE + row.ID);
    offer();
    return [
      h("p", { class: "why" }, told.Why),
      told.Next && h("p", { class: "next" }, told.Next),
      checks.length > 0 && h("h3", null, "Checks"),
      h("ul", { class: "checks" }, checks.map((check) => h("li", null, badge(check.Status, check.Status),
        h("span", null, check.Name || check.CheckID), h("pre", null, check.Output ?? "")))),
      h("h3", null, "What happened"),
      timeline(told.Timeline),
      h("h3", null, "Definition"),
      told.Now === null ? h("p", { class: "faint" }, "It is gone.") : h("pre", { class: "json" }, JSON.stringify(told.Now.Service ?? told.Now, null, 2)),
    ].filter(Boolean);
  });

  const act = async (what, request) => {
    try {
      await request();
      notice("action", "passing", `${row.ID}: ${what}`);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      notice("action", "critical", `${row.ID}: ${error.message}`);
    }
    explained.again();
  };

  async function maintain() {
    const begin = !maintained;
    const reason = await confirm({
      title: begin ? `Put ${row.ID} into maintenance?` : `End the maintenance of ${row.ID}?`,
      text: begin ? "It turns critical, so nobody is sent to it, until maintenance ends." : "Its own checks decide again how it is.",
      act: begin ? "Begin maintenance" : "End maintenance", field: begin && "Reason",
    });
    if (reason === null) return;
    const why = begin && reason !== "" ? `&reason=${encodeURIComponent(reason)}` : "";
    const target = `${path("/v1/agent/service/maintenance/", row.ID)}?enable=${begin}${why}&${agent(row)}`;
    await act(begin ? "maintenance has begun" : "maintenance has ended", () => ask("PUT", target));
  }

  async function deregister() {
    const sure = await confirm({
      title: `Deregister ${row.ID}?`,
      text: `Instance ${row.ID} of ${row.Service} at ${row.Node} leaves the catalogue with its checks. If its process still registers itself, it comes back.`,
      act: "Deregister",
    });
    if (sure === null) return;
    await act("deregistered", () => ask("PUT", `${path("/v1/agent/service/deregister/", row.ID)}?${agent(row)}`));
  }

  function offer() {
    const present = store.rows.has(key);
    actions.replaceChildren(
      button(maintained ? "End maintenance" : "Maintenance", maintain, { "data-act": "maintenance", disabled: !present || maintained === null }),
      button("Deregister", deregister, { class: "danger", "data-act": "deregister", disabled: !present }));
  }
  offer();

  const drawHead = () => {
    const now = store.rows.get(key);
    if (now === undefined) return head.replaceChildren(badge("unknown", "deregistered"));
    const { level, word } = stateOf(now);
    const age = ageOf(now);
    return head.replaceChildren(badge(level, word), h("span", null, age === null ? "no heartbeats" : `heard ${span(age)} ago`));
  };

  const text = (value) => (value === undefined || value === "" ? null : String(value));
  return {
    kind: "Instance",
    title: row.ID,
    element: h("div", { class: "panel-body" }, head, actions,
      facts([
        ["Service", row.Service], ["Node", row.Node], ["Address", place(row)], ["Process", text(row.Process)],
        ["PID", text(row.Pid)], ["Version", text(row.Version)], ["Presence", text(row.Presence)], ["Tags", (row.Tags ?? []).join(", ")],
      ]), h("h3", null, "Why"), explained.element),
    draw() {
      const now = store.rows.get(key);
      const status = now === undefined ? "gone" : `${now.Status} ${now.Restarts ?? 0} ${now.Address} ${now.Port}`;
      if (status !== shownStatus && shownStatus !== "") explained.again();
      if (status !== shownStatus) offer();
      shownStatus = status;
      drawHead();
    },
    tick: drawHead,
  };
}

async function checksOf(row) {
  if (!store.rows.has(row.key)) return [];
  const checks = await get(`${path("/v1/health/checks/", row.Service)}`);
  return checks.filter((check) => check.ServiceID === row.ID && check.Node === row.Node);
}
