// The view of claims: the pools, who has their instances, and who waits in line.

import { h, badge, button, setBadge } from "./dom.js";
import { count, natural, plural, timeOf } from "./format.js";
import { ask, get, path, Refused } from "./members.js";
import { Rows, Sort, textCell } from "./rows.js";
import { store } from "./store.js";
import { confirm, notice } from "./dialog.js";
import { facts } from "./panel.js";
import { toolbar } from "./toolbar.js";

const EVERY_MS = 1_000;
const POOL = "/v1/quorate/claims/";

/// A pool in whose line somebody waits is one to look at; one without instances is broken.
function levelOf({ Instances, Slots, Busy, Waiting }) {
  if (Instances === 0) return ["critical", "empty"];
  if (Waiting > 0) return ["warning", "in line"];
  return ["passing", Busy < Slots ? "idle slots" : "all busy"];
}

function stateCell() {
  const shown = badge("unknown", "");
  return [h("div", null, shown), (pool) => setBadge(shown, ...levelOf(pool))];
}

/// What an instance of a pool does.
function instanceState({ Usable, Slots, Busy, Closed }) {
  if (!Usable) return ["critical", "unusable"];
  if (Slots === 0) return ["warning", "leaving"];
  const free = Slots - Busy.length - Closed;
  if (free > 0) return ["passing", Busy.length === 0 ? "idle" : `${count(free)} free`];
  return Closed > 0 && Busy.length === 0 ? ["warning", "closed"] : ["passing", "busy"];
}

const requirement = (require) => Object.entries(require ?? {}).map(([key, value]) => `${key}=${value}`).join(", ");

async function release(service, { ID }, { Holder, Fence }) {
  const sure = await confirm({
    title: "Release this claim?",
    text: `${Holder} has ${ID} with fence ${Fence}. It is told that its claim is over, and the next in line gets the instance; what it does there may still run.`,
    act: "Release",
  });
  if (sure === null) return;
  try {
    await ask("PUT", `${path(POOL, service)}/force?fence=${Fence}`);
    notice("action", "passing", `The claim of ${Holder} on ${ID} was released`);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    notice("action", "critical", error.message);
  }
}

function holderLine(service, instance, holder, changed) {
  const act = button("Release", async () => {
    await release(service, instance, holder);
    changed();
  }, { class: "danger", "data-act": "release" });
  return h("li", null, h("span", { class: "holder" }, holder.Holder), h("span", { class: "faint" }, `fence ${holder.Fence}, since `, timeOf(holder.Since)), act);
}

function instanceLine(service, instance, changed) {
  return h("li", { class: "pool-instance" },
    h("div", { class: "pool-head" }, badge(...instanceState(instance)), h("span", { class: "instance" }, instance.ID), h("span", { class: "faint" }, instance.Node),
      h("span", { class: "faint" }, plural(instance.Slots, "slot"), instance.Closed > 0 ? `, ${count(instance.Closed)} closed` : "")),
    h("ul", { class: "holders" }, instance.Busy.map((holder) => holderLine(service, instance, holder, changed))));
}

/// The panel of a pool. It is read again while it is open, unless somebody points at it to press something.
function poolPanel(service) {
  const element = h("div", { class: "panel-body pool" }, h("p", { class: "faint" }, "Loading …"));
  let shown = "";
  const again = async () => {
    try {
      const pool = await get(path(POOL, service));
      const text = JSON.stringify(pool);
      if (text === shown || document.querySelector("dialog[open]")) return;
      shown = text;
      const waiters = pool.Queue.map(({ Holder, Since, Require, Left }) =>
        h("li", null, h("span", { class: "holder" }, Holder), h("span", { class: "faint" }, requirement(Require), " since ", timeOf(Since), Left ? ", has gone" : "")));
      const more = pool.Waiting + pool.Left - pool.Queue.length;
      element.replaceChildren(
        facts([["Instances", count(pool.Instances.length)], ["Waiting", count(pool.Waiting)], ["Granted", count(pool.Granted)], ["Expired", count(pool.Expired)]]),
        h("h3", null, "Instances"), h("ul", { class: "pool-instances" }, pool.Instances.map((instance) => instanceLine(service, instance, again))),
        h("h3", null, "In line"),
        waiters.length === 0 ? h("p", { class: "faint" }, "Nobody waits.") : h("ol", { class: "queue" }, waiters),
        ...(more > 0 ? [h("p", { class: "faint" }, `and ${plural(more, "more", "more")}`)] : []));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      shown = "";
      element.replaceChildren(h("p", { class: "failed" }, error.message));
    }
  };
  again();
  return { kind: "Pool", title: service, element, tick: again };
}

const KEYS = {
  service: ({ Service }) => natural(Service),
  waiting: ({ Waiting }) => -Waiting,
  busy: ({ Busy, Slots }) => -(Busy / Math.max(1, Slots)),
  granted: ({ Granted }) => -Granted,
};

/// Makes the view.
export function claims(root, go, panel) {
  let all = null;
  const sort = new Sort("waiting", () => view.draw());
  const rows = new Rows({
    name: "claims", label: "Pools", sort,
    key: ({ Service }) => Service,
    className: (pool) => (levelOf(pool)[0] === "critical" ? "critical" : ""),
    open: ({ Service }) => panel.show(poolPanel(Service)),
    columns: [
      { id: "state", title: "State", make: stateCell },
      { id: "service", title: "Service", make: textCell(({ Service }) => Service), sort: true },
      { id: "instances", title: "Instances", make: textCell(({ Instances }) => count(Instances)) },
      { id: "busy", title: "Busy slots", make: textCell(({ Busy, Slots }) => `${count(Busy)} of ${count(Slots)}`), sort: true },
      { id: "waiting", title: "Waiting", make: textCell(({ Waiting }) => count(Waiting)), sort: true },
      { id: "granted", title: "Granted", make: textCell(({ Granted }) => count(Granted)), sort: true },
      { id: "expired", title: "Expired", make: textCell(({ Expired }) => count(Expired)) },
    ],
  });
  rows.markSort();
  const bar = toolbar("Filter pools", () => view.draw());
  bar.element.querySelector(".pinned-only").hidden = true;
  root.append(bar.element, rows.element);

  async function poll() {
    if (document.hidden || store.leader === null) return;
    try {
      all = await get("/v1/quorate/claims");
      view.draw();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
    }
  }

  const view = {
    filter: bar.input,
    leave: () => clearInterval(timer),
    draw() {
      const wanted = bar.text();
      const found = (all ?? []).filter(({ Service }) => Service.toLowerCase().includes(wanted));
      const waiting = found.reduce((total, { Waiting }) => total + Waiting, 0);
      bar.say(`${plural(found.length, "pool")}, ${count(waiting)} waiting`);
      rows.set(sort.sort(new Sort("service").sort(found, KEYS), KEYS), all === null ? "Loading …" : "No pool matches: an instance with Meta slots founds one.");
    },
  };
  const timer = setInterval(poll, EVERY_MS);
  poll();
  return view;
}
