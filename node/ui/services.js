// The view of services: problems first, how many instances are how well, and how much happens.

import { h, svg, badge, setBadge, setText, setAttribute, icon } from "./dom.js";
import { count, natural, plural, span } from "./format.js";
import { badness } from "./level.js";
import { Rows, Sort, textCell } from "./rows.js";
import { store, ageOf, levelOf, now, changesOf, togglePin, PINS_MAX, MINUTES } from "./store.js";
import { toolbar } from "./toolbar.js";

const [WIDTH, HEIGHT] = [100, 20];

/// Sums up the instances by service.
function summed() {
  const services = new Map();
  const at = now();
  for (const row of store.rows.values()) {
    let service = services.get(row.Service);
    if (service === undefined) {
      service = { name: row.Service, passing: 0, warning: 0, critical: 0, total: 0, level: "passing", youngest: null, oldest: null };
      services.set(row.Service, service);
    }
    const level = levelOf(row, at);
    service.total++;
    if (level in service) service[level]++;
    if (badness(level) > badness(service.level)) service.level = level;
    const age = ageOf(row);
    if (age === null) continue;
    service.youngest = Math.min(service.youngest ?? Infinity, age);
    service.oldest = Math.max(service.oldest ?? 0, age);
  }
  return [...services.values()];
}

/// By what each column is sorted, problems and large numbers first.
const KEYS = {
  state: ({ level, critical, warning }) => -(badness(level) * 1e12 + critical * 1e6 + warning),
  service: ({ name }) => natural(name),
  instances: ({ total }) => -total,
  oldest: ({ oldest }) => -(oldest ?? -1),
  changes: ({ name }) => -sum(changesOf(name)),
};

const sum = (values) => values.reduce((total, value) => total + value, 0);

function pinCell() {
  let name = "";
  const press = (event) => {
    event.stopPropagation();
    togglePin(name);
  };
  const pin = h("button", { type: "button", class: "pin", on: { click: press } }, icon("pin"));
  return [h("div", null, pin), (service) => {
    ({ name } = service);
    const is = store.pins.has(name);
    setAttribute(pin, "aria-pressed", String(is));
    setAttribute(pin, "aria-label", `Pin ${name}`);
    setAttribute(pin, "disabled", !is && store.pins.size >= PINS_MAX);
  }];
}

function stateCell() {
  const shown = badge("unknown", "");
  return [h("div", null, shown), ({ level }) => setBadge(shown, level, level)];
}

function countsCell() {
  const counts = ["critical", "warning", "passing"].map((level) => {
    const element = badge(level, "");
    element.classList.add("count");
    return { level, element };
  });
  return [h("div", null, counts.map(({ element }) => element)), (service) => {
    for (const { level, element } of counts) {
      element.hidden = service[level] === 0;
      setText(element.lastChild, count(service[level]));
      setAttribute(element, "title", `${count(service[level])} ${level}`);
      setAttribute(element, "aria-label", `${count(service[level])} ${level}`);
    }
  }];
}

/// A bar for each of the last minutes.
function sparkCell() {
  const path = svg("path");
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "spark", role: "img", preserveAspectRatio: "none" }, path);
  const figure = h("span", { class: "figure" });
  return [h("div", null, picture, figure), ({ name }) => {
    const changes = changesOf(name);
    const most = Math.max(4, ...changes);
    const step = WIDTH / MINUTES;
    const bars = changes.map((value, place) => {
      const height = value === 0 ? 1 : Math.max(3, (value / most) * HEIGHT);
      return `M${(place * step).toFixed(1)} ${HEIGHT}v${(-height).toFixed(1)}h${(step - 1.5).toFixed(1)}V${HEIGHT}z`;
    });
    setAttribute(path, "d", bars.join(""));
    const total = sum(changes);
    setText(figure, count(changes.at(-1)));
    setAttribute(picture, "aria-label", `${plural(total, "change")} in the last ${MINUTES} minutes, ${changes.at(-1)} in this one`);
  }];
}

/// Makes the view.
export function services(root, go) {
  const sort = new Sort("state", () => view.draw());
  const rows = new Rows({
    name: "services", label: "Services", sort,
    key: (service) => service.name,
    className: ({ level }) => level,
    open: (service) => go("instances", { service: service.name }),
    columns: [
      { id: "pinned", title: "", make: pinCell },
      { id: "state", title: "State", make: stateCell, sort: true },
      { id: "service", title: "Service", make: textCell(({ name }) => name), sort: true },
      { id: "counts", title: "Instances by state", make: countsCell },
      { id: "instances", title: "Instances", make: textCell(({ total }) => count(total)), sort: true },
      { id: "youngest", title: "Youngest beat", make: textCell(({ youngest }) => span(youngest ?? Number.NaN)) },
      { id: "oldest", title: "Oldest beat", make: textCell(({ oldest }) => span(oldest ?? Number.NaN)), sort: true },
      { id: "changes", title: "Changes per minute", make: sparkCell, sort: true },
    ],
  });
  rows.markSort();
  const bar = toolbar("Filter services", () => view.draw());
  root.append(bar.element, rows.element);
  const view = {
    draw() {
      const wanted = bar.text();
      const all = summed();
      const found = all.filter(({ name }) => name.toLowerCase().includes(wanted));
      const shown = sort.sort(new Sort("service").sort(found, KEYS), KEYS);
      bar.say(`${plural(shown.length, "service")}, ${plural(sum(shown.map(({ total }) => total)), "instance")}`);
      rows.set(shown, store.complete ? "No service matches." : "Loading …");
    },
    tick() {
      this.draw();
    },
    filter: bar.input,
  };
  return view;
}
