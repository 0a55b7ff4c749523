// The page: its views, which one is shown, keys, and what happens every second.

import { h, setAttribute } from "./dom.js";
import { members } from "./members.js";
import { store, follow, keepAges, loadPast, onDraw, onNews, touch } from "./store.js";
import { keepLooking } from "./cluster.js";
import { header } from "./header.js";
import { makePanel } from "./panel.js";
import { notice } from "./dialog.js";
import { services } from "./services.js";
import { instances } from "./instances.js";
import { nodes } from "./nodes.js";
import { kv } from "./kv.js";
import { sessions } from "./sessions.js";
import { claims } from "./claims.js";
import { events } from "./events.js";
import { timeOf, count } from "./format.js";

const TICK_MS = 1_000;

const VIEWS = [
  { name: "services", title: "Services", make: services },
  { name: "instances", title: "Instances", make: instances },
  { name: "nodes", title: "Nodes", make: nodes },
  { name: "kv", title: "Keys", make: kv },
  { name: "sessions", title: "Sessions", make: sessions },
  { name: "claims", title: "Claims", make: claims },
  { name: "events", title: "Events", make: events },
];

const view = document.getElementById("view");
const drawHeader = header(document.getElementById("header"));
const panel = makePanel(document.getElementById("panel"));
let current = null;

const tabs = new Map(VIEWS.map(({ name, title }, place) => [name,
  h("a", { href: `#/${name}`, "aria-keyshortcuts": place + 1 }, title)]));
document.getElementById("tabs").append(...tabs.values());

/// Goes to a view: `#/instances?service=web`.
function go(name, params) {
  const query = new URLSearchParams(params).toString();
  location.hash = `#/${name}${query === "" ? "" : `?${query}`}`;
}

function enter() {
  const [name, query] = location.hash.replace(/^#\//, "").split("?");
  const wanted = VIEWS.find((candidate) => candidate.name === name) ?? VIEWS[0];
  for (const [tab, element] of tabs) setAttribute(element, "aria-current", tab === wanted.name ? "page" : null);
  tabs.get(wanted.name).scrollIntoView({ inline: "nearest", block: "nearest" });
  document.title = `${wanted.title} · Quorate`;
  if (current?.name !== wanted.name) {
    current?.view.leave?.();
    panel.close();
    const root = h("section", { class: "view", "aria-label": wanted.title });
    view.replaceChildren(root);
    current = { name: wanted.name, view: wanted.make(root, go, panel) };
  }
  current.view.enter?.(Object.fromEntries(new URLSearchParams(query)));
  draw();
}

let knowsPast = false;
function draw() {
  if (store.complete && !knowsPast) {
    knowsPast = true;
    loadPast();
  }
  drawHeader();
  current?.view.draw();
  panel.draw();
}

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if (event.target.matches("input") && event.target.value !== "") return;
    panel.close();
  }
  if (event.target.closest("input, textarea, select")) return;
  const place = Number(event.key) - 1;
  if (event.key === "/" && current?.view.filter) current.view.filter.focus();
  else if (place in VIEWS) go(VIEWS[place].name, {});
  else return;
  event.preventDefault();
}

const NEWS = {
  moved: ({ from, to, seq }) => notice("moved", "warning", `${members.name(from)} was lost at `, timeOf(new Date()),
    `. The page goes on at ${members.name(to)}, from record ${count(seq)}.`),
  gap: ({ since, last }) => notice("gap", "warning",
    `The servers no longer keep all changes after record ${count(since)}; those up to ${count(last)} are missing among the events. Instances are shown as they are now.`),
  restored: () => notice("restored", "warning", "A backup was restored at ", timeOf(new Date()), "."),
};
onNews((news) => NEWS[news.kind](news));

onDraw(draw);
addEventListener("hashchange", enter);
addEventListener("keydown", press);
document.addEventListener("visibilitychange", touch);
setInterval(() => {
  if (document.hidden) return;
  drawHeader();
  current?.view.tick?.();
  panel.tick();
}, TICK_MS);

enter();
follow();
keepAges();
keepLooking();
