// A table of which only the visible rows exist, so that ten thousand cost what thirty do.

import { h, setAttribute } from "./dom.js";

/// Rows that are made beyond each edge, so that fast scrolling shows no gaps.
const MARGIN = 6;

export class Rows {
  /// `label`: what the table shows. `columns`: `{ id, title, make, sort }`: `make` returns `[cell, fill]`, where
  /// `fill(item)` shows an item in the cell. `key(item)` names an item; `open(item)` is called for the
  /// chosen one; `className(item)` is the class of its row.
  constructor({ name, label, columns, key, open, className, sort }) {
    Object.assign(this, { columns, key, open, className, sort });
    this.items = [];
    this.activeKey = null;
    this.shown = [];
    this.name = name;
    this.head = h("div", { class: "row head", role: "row" }, columns.map((column) => this.heading(column)));
    this.body = h("div", { class: "body", role: "rowgroup" });
    this.empty = h("p", { class: "empty" });
    this.element = h("div", {
      class: `rows ${name}`, role: "grid", "aria-label": label, tabindex: 0,
      on: { scroll: () => this.draw(), keydown: (event) => this.press(event) },
    }, this.head, this.body, this.empty);
    this.rowHeight = 0;
    this.resized = new ResizeObserver(() => {
      // It depends on the window's width.
      this.rowHeight = Number.parseFloat(getComputedStyle(this.element).getPropertyValue("--row"));
      this.draw();
    });
    this.resized.observe(this.element);
  }

  heading({ id, title, sort }) {
    if (sort === undefined) return h("div", { role: "columnheader", class: `cell ${id}` }, title);
    const choose = () => {
      this.sort?.choose(id);
      this.markSort();
    };
    return h("div", { role: "columnheader", class: `cell ${id}` },
      h("button", { type: "button", class: "sort", "data-sort": id, tabindex: -1, on: { click: choose } }, title));
  }

  /// Shows by which column it is sorted.
  markSort() {
    for (const element of this.head.querySelectorAll("[data-sort]")) {
      const is = this.sort?.by === element.dataset.sort;
      setAttribute(element.parentElement, "aria-sort", is ? (this.sort.down ? "descending" : "ascending") : null);
    }
  }

  /// Shows these items; `none` is said where there are none.
  set(items, none) {
    this.items = items;
    this.empty.textContent = none;
    this.empty.hidden = items.length > 0;
    setAttribute(this.element, "aria-rowcount", items.length + 1);
    this.draw();
  }

  /// Draws the rows that are in sight.
  draw() {
    const height = this.rowHeight;
    if (height === 0) return;
    const { scrollTop, clientHeight } = this.element;
    this.body.style.height = `${this.items.length * height}px`;
    const first = Math.max(0, Math.floor(scrollTop / height) - MARGIN);
    const last = Math.min(this.items.length, Math.ceil((scrollTop + clientHeight) / height) + MARGIN);
    const wanted = Math.max(0, last - first);
    while (this.shown.length < wanted) this.shown.push(this.make());
    // A row element shows every n-th item, so scrolling by one row changes one element.
    const size = this.shown.length;
    const used = new Set();
    for (let place = first; place < last; place++) {
      const row = this.shown[place % size];
      used.add(row);
      this.fill(row, place, height);
    }
    for (const row of this.shown) {
      if (!used.has(row)) row.element.hidden = true;
    }
    const active = [...used].find((row) => row.item && this.key(row.item) === this.activeKey);
    setAttribute(this.element, "aria-activedescendant", active?.element.id);
  }

  make() {
    const cells = this.columns.map((column) => {
      const [cell, fill] = column.make();
      cell.classList.add("cell", column.id);
      cell.setAttribute("role", "gridcell");
      return { cell, fill };
    });
    const row = { element: h("div", { class: "row", role: "row", id: `${this.name}-${this.shown.length}` }, cells.map(({ cell }) => cell)), cells, item: null };
    row.element.addEventListener("click", () => {
      this.activeKey = this.key(row.item);
      this.draw();
      this.open?.(row.item);
    });
    this.body.append(row.element);
    return row;
  }

  fill(row, place, height) {
    const item = this.items[place];
    const key = this.key(item);
    row.item = item;
    row.element.hidden = false;
    const transform = `translateY(${place * height}px)`;
    if (row.element.style.transform !== transform) row.element.style.transform = transform;
    setAttribute(row.element, "aria-rowindex", place + 2);
    setAttribute(row.element, "data-key", key);
    const isActive = key === this.activeKey;
    setAttribute(row.element, "class", `row ${this.className?.(item) ?? ""}${isActive ? " active" : ""}`);
    setAttribute(row.element, "aria-selected", isActive ? "true" : null);
    for (const { fill } of row.cells) fill(item);
  }

  press(event) {
    if (event.target !== this.element) return;
    const page = Math.max(1, Math.floor(this.element.clientHeight / this.rowHeight) - 2);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    const place = this.items.findIndex((item) => this.key(item) === this.activeKey);
    if (event.key in steps && this.items.length > 0) {
      const next = place < 0 ? 0 : Math.min(this.items.length - 1, Math.max(0, place + steps[event.key]));
      this.activate(next);
    } else if (event.key === "Enter" && place >= 0) {
      this.open?.(this.items[place]);
    } else {
      return;
    }
    event.preventDefault();
  }

  activate(place) {
    this.activeKey = this.key(this.items[place]);
    const height = this.rowHeight;
    const head = this.head.offsetHeight;
    const [top, bottom] = [place * height, (place + 1) * height + head];
    if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (bottom > this.element.scrollTop + this.element.clientHeight) this.element.scrollTop = bottom - this.element.clientHeight;
    this.draw();
  }
}

/// By which column a table is sorted; `chosen` is called after a click on a heading.
export class Sort {
  constructor(by, chosen, down = false) {
    Object.assign(this, { by, down, chosen });
  }

  /// Sorts items by what `keys` has for the chosen column; equal ones stay in the order in which they are.
  sort(items, keys) {
    const key = keys[this.by];
    const sign = this.down ? -1 : 1;
    const keyed = items.map((item) => ({ item, key: key(item) }));
    keyed.sort((one, other) => (one.key < other.key ? -sign : one.key > other.key ? sign : 0));
    return keyed.map(({ item }) => item);
  }

  choose(by) {
    this.down = this.by === by ? !this.down : false;
    this.by = by;
    this.chosen();
  }
}

/// A cell with a text.
export function textCell(read, props) {
  return () => {
    const cell = h("div", props, "");
    let shown = "";
    return [cell, (item) => {
      const text = String(read(item));
      if (text === shown) return;
      shown = text;
      cell.textContent = text;
      cell.title = text;
    }];
  };
}
