// The view of instances: who they are, and how long ago each one was heard.

import { h, badge, setBadge, setAttribute, icon } from "./dom.js";
import { count, natural, place, plural, span, utc } from "./format.js";
import { badness, ageLevel } from "./level.js";
import { Rows, Sort, textCell } from "./rows.js";
import { store, ageOf, levelOf, now, stateOf, isStill } from "./store.js";
import { toolbar } from "./toolbar.js";
import { instancePanel } from "./instance_panel.js";

const WORDS = ["state:critical", "state:warning", "state:passing"];

/// By what each column is sorted, problems and large numbers first.
const KEYS = {
  order: (row) => row.order,
  state: (row) => -badness(levelOf(row, now())),
  id: (row) => natural(row.ID),
  service: (row) => row.order,
  process: (row) => natural(row.Process ?? ""),
  node: (row) => natural(row.Node),
  address: (row) => natural(place(row)),
  version: (row) => natural(row.Version ?? ""),
  restarts: (row) => -(row.Restarts ?? 0),
  age: (row) => -(ageOf(row) ?? -1),
};

const byOrder = new Sort("order");

const known = (value, show = String) => (value === undefined || value === null || value === "" ? "-" : show(value));

function stateCell() {
  const shown = badge("unknown", "");
  return [h("div", null, shown), (row) => {
    const { level, word } = stateOf(row);
    setBadge(shown, level, word);
    setAttribute(shown, "title", row.Error || row.Warning || null);
  }];
}

function ageCell() {
  const shown = badge("unknown", "");
  return [h("div", null, shown), (row) => {
    const age = ageOf(row);
    // A presence is heard all the time, as long as it is there.
    if (age === null) setBadge(shown, row.Presence ? row.Status : "unknown", row.Presence || "-");
    else setBadge(shown, ageLevel(age, row.limits), span(age));
    setAttribute(shown, "data-still", isStill() ? "" : null);
    setAttribute(shown, "title", age === null ? "No check waits for heartbeats" : heard(row, age));
  }];
}

function heard(row, age) {
  const at = utc(new Date(Date.now() - age));
  const limit = (ms) => (Number.isFinite(ms) ? span(ms) : "never");
  return `Last heartbeat ${at.slice(0, 19)} UTC; orange after ${limit(row.limits.warn)}, red after ${limit(row.limits.critical)}`;
}

/// How long ago a status began, where the row says it.
const since = (row) => known(row.Since, (at) => span(Date.now() - Date.parse(at)));

/// Makes the view.
export function instances(root, go, panel) {
  const sort = new Sort("state", () => view.draw());
  const open = (row) => panel.show(instancePanel(row.key, panel));
  const rows = new Rows({
    name: "instances", label: "Instances", sort, open,
    key: (row) => row.key,
    className: (row) => levelOf(row, now()),
    columns: [
      { id: "state", title: "State", make: stateCell, sort: true },
      { id: "id", title: "Instance", make: textCell((row) => row.ID), sort: true },
      { id: "age", title: "Heartbeat", make: ageCell, sort: true },
      { id: "service", title: "Service", make: textCell((row) => row.Service), sort: true },
      { id: "process", title: "Process", make: textCell((row) => known(row.Process)), sort: true },
      { id: "address", title: "Address", make: textCell(place), sort: true },
      { id: "node", title: "Node", make: textCell((row) => row.Node), sort: true },
      { id: "pid", title: "PID", make: textCell((row) => known(row.Pid)) },
      { id: "version", title: "Version", make: textCell((row) => known(row.Version)), sort: true },
      { id: "counter", title: "Counter", make: textCell((row) => known(row.Counter, count)) },
      { id: "restarts", title: "Restarts", make: textCell((row) => known(row.Restarts, count)), sort: true },
      { id: "since", title: "Status for", make: textCell(since) },
    ],
  });
  rows.markSort();
  const service = h("button", { type: "button", class: "chip", title: "Show all services", on: { click: () => go("instances", {}) } });
  const bar = toolbar("Filter instances", () => view.draw(), service);
  root.append(bar.element, rows.element);
  let wantedService = "";
  let all = [];
  let version = -1;
  const view = {
    filter: bar.input,
    enter(params) {
      wantedService = params.service ?? "";
      service.hidden = wantedService === "";
      service.replaceChildren(h("span", null, wantedService), icon("close"));
      this.draw();
    },
    draw() {
      const words = bar.text().split(/\s+/).filter((word) => word !== "");
      const at = now();
      const matches = (row, word) => (WORDS.includes(word) ? levelOf(row, at) === word.slice(6) : row.text.includes(word));
      if (version !== store.version) {
        all = byOrder.sort([...store.rows.values()], KEYS);
        ({ version } = store);
      }
      const found = all.filter((row) => (wantedService === "" || row.Service === wantedService) && words.every((word) => matches(row, word)));
      const shown = sort.sort(found, KEYS);
      const levels = { critical: 0, warning: 0 };
      for (const row of shown) {
        const level = levelOf(row, at);
        if (level in levels) levels[level]++;
      }
      bar.say(`${plural(shown.length, "instance")}: ${count(levels.critical)} critical, ${count(levels.warning)} warning`);
      rows.set(shown, store.complete ? "No instance matches." : "Loading …");
    },
    tick() {
      this.draw();
    },
  };
  return view;
}
