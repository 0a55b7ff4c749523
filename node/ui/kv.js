// The view of keys: a tree that is loaded where it is opened, and one key in full.

import { h, button, icon, setText } from "./dom.js";
import { count, plural } from "./format.js";
import { get, keyPath, members, Refused } from "./members.js";
import { keyPanel, newKeyPanel } from "./key_panel.js";

const SEPARATOR = "/";
/// So many names of one folder are shown at once.
const NAMES_MAX = 500;

/// Makes the view.
export function kv(root, go, panel) {
  const tree = h("ul", { class: "tree", role: "tree", "aria-label": "Keys" });
  const summary = h("span", { class: "summary", role: "status" });
  const input = h("input", { type: "search", placeholder: "Prefix, or a key to open", "aria-label": "Prefix, or a key to open", autocomplete: "off", spellcheck: "false" });
  const refresh = () => load(tree, input.value);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && input.value !== "" && !input.value.endsWith(SEPARATOR)) open(input.value);
  });
  input.addEventListener("input", refresh);
  root.append(
    h("div", { class: "toolbar" }, input, button("Reload", refresh), button("New key", create, { "data-act": "new" }), summary),
    h("div", { class: "scroll" }, tree));
  tree.addEventListener("keydown", walk);

  const open = (key) => panel.show(keyPanel(key, panel, refresh));
  function create() {
    const prefix = input.value.endsWith(SEPARATOR) ? input.value : "";
    panel.show(newKeyPanel(prefix, (key) => {
      refresh();
      open(key);
    }));
  }

  /// Fills a list with the names below a prefix.
  async function load(list, prefix, shown = NAMES_MAX) {
    const mine = Symbol("load");
    list.load = mine;
    if (list.children.length === 0) list.replaceChildren(h("li", { class: "faint", role: "none" }, "Loading …"));
    try {
      const keys = await names(prefix);
      if (list.load !== mine) return;
      if (list === tree) setText(summary, plural(keys.length, "name"));
      const items = keys.slice(0, shown).map((key) => item(key, list === tree ? "" : prefix));
      if (keys.length > shown) items.push(h("li", { role: "none" }, button(`${count(keys.length - shown)} more`, () => load(list, prefix, shown + NAMES_MAX))));
      if (items.length === 0) items.push(h("li", { class: "faint", role: "none" }, "No keys here."));
      list.replaceChildren(...items);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      list.replaceChildren(h("li", { class: "failed", role: "none" }, error.message));
    }
  }

  async function names(prefix) {
    try {
      // Without a leader, the server still shows what it has.
      const stale = members.hasLeader ? "" : "&stale";
      return await get(`${keyPath(prefix)}?keys&separator=${encodeURIComponent(SEPARATOR)}${stale}`);
    } catch (error) {
      if (error.status === 404) return [];
      throw error;
    }
  }

  function item(key, prefix) {
    const isFolder = key.endsWith(SEPARATOR);
    const name = key.slice(prefix.length) || key;
    const line = h("button", { type: "button", class: "node", role: "treeitem", "data-key": key, "aria-expanded": isFolder ? "false" : null },
      icon(isFolder ? "folder" : "key"), h("span", null, name));
    const below = h("ul", { role: "group", hidden: true });
    line.addEventListener("click", () => {
      if (!isFolder) return open(key);
      below.hidden = !below.hidden;
      line.setAttribute("aria-expanded", String(!below.hidden));
      if (!below.hidden) load(below, key);
      return undefined;
    });
    return h("li", { role: "none" }, line, isFolder && below);
  }

  function walk(event) {
    const lines = [...tree.querySelectorAll(".node")].filter((line) => line.offsetParent !== null);
    const place = lines.indexOf(document.activeElement);
    const line = lines[place];
    if (line === undefined) return;
    const expanded = line.getAttribute("aria-expanded");
    if (event.key === "ArrowDown") lines[place + 1]?.focus();
    else if (event.key === "ArrowUp") lines[place - 1]?.focus();
    else if (event.key === "ArrowRight" && expanded === "false") line.click();
    else if (event.key === "ArrowLeft" && expanded === "true") line.click();
    else return;
    event.preventDefault();
  }

  refresh();
  return { filter: input, draw() {} };
}
