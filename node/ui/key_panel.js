// One key in full: its value as text, JSON or hex, changed only if nobody else did meanwhile.

import { h, button, setText, setAttribute } from "./dom.js";
import { bytes, count } from "./format.js";
import { ask, get, keyPath, path, send, textOf, Refused } from "./members.js";
import { facts, loaded, timeline } from "./panel.js";
import { confirm, notice } from "./dialog.js";

const FORMS = ["Text", "JSON", "Hex"];
/// Longer values are cut in the view of bytes.
const HEX_BYTES_MAX = 16 * 1024;
const HEX_LINE = 16;

const utf8 = new TextDecoder("utf-8", { fatal: true });

function decode(base64) {
  const value = Uint8Array.from(atob(base64 ?? ""), (char) => char.charCodeAt(0));
  try {
    return { value, text: utf8.decode(value) };
  } catch {
    return { value, text: null };
  }
}

function hex(value) {
  const lines = [];
  for (let at = 0; at < Math.min(value.length, HEX_BYTES_MAX); at += HEX_LINE) {
    const part = [...value.slice(at, at + HEX_LINE)];
    const digits = part.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    const shown = part.map((byte) => (byte > 32 && byte < 127 ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${at.toString(16).padStart(6, "0")}  ${digits.padEnd(HEX_LINE * 3 - 1)}  ${shown}`);
  }
  if (value.length > HEX_BYTES_MAX) lines.push(`… ${bytes(value.length - HEX_BYTES_MAX)} more`);
  return lines.join("\n");
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return null;
  }
}

/// Writes a value if the key is still at `index` (0: if it is not there). Returns whether it was.
async function write(key, value, index, flags = 0) {
  const answer = await ask("PUT", `${keyPath(key)}?cas=${index}&flags=${flags}`, { body: value });
  return (await textOf(answer)).trim() === "true";
}

/// What the panel shows of a key; `changed` is called when it was written or deleted here.
export function keyPanel(key, panel, changed) {
  const element = h("div", { class: "panel-body" });
  let entry = null;
  let form = null;

  async function read() {
    const answer = await send("GET", keyPath(key));
    if (answer.status === 404) return null;
    if (!answer.ok) throw new Refused(answer.status, await textOf(answer));
    const [row] = JSON.parse(await textOf(answer));
    return { ...row, ...decode(row.Value) };
  }

  async function show() {
    try {
      entry = await read();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      element.replaceChildren(h("p", { class: "failed" }, error.message));
      return;
    }
    if (entry === null) {
      element.replaceChildren(h("p", { class: "faint" }, "There is no such key."), why());
      return;
    }
    form ??= entry.text === null ? "Hex" : pretty(entry.text) !== null && /^\s*[[{]/.test(entry.text) ? "JSON" : "Text";
    view();
  }

  const why = () => loaded(async () => {
    const told = await get(`${path("/v1/quorate/explain/key/", ...key.split("/")).replaceAll("%2F", "/")}`);
    return [h("h3", null, "Why"), h("p", { class: "why" }, told.Why), h("h3", null, "What happened"), timeline(told.Timeline)];
  }).element;

  function view() {
    const shown = h("pre", { class: "json value", tabindex: 0 });
    const paint = () => {
      const text = { Text: entry.text, JSON: pretty(entry.text ?? ""), Hex: hex(entry.value) }[form];
      setText(shown, text ?? (form === "JSON" ? "This is no JSON." : "These bytes are no UTF-8 text."));
      for (const choice of forms.children) setAttribute(choice, "aria-pressed", String(choice.textContent === form));
    };
    const forms = h("div", { class: "actions", role: "group", "aria-label": "Form" }, FORMS.map((name) => button(name, () => {
      form = name;
      paint();
    })));
    element.replaceChildren(
      h("div", { class: "actions" },
        button("Edit", () => edit(entry.text), { "data-act": "edit", disabled: entry.text === null, title: entry.text === null ? "Only text can be edited here" : null }),
        button("Delete", remove, { class: "danger", "data-act": "delete" })),
      facts([
        ["Size", bytes(entry.value.length)], ["Flags", count(entry.Flags)], ["Made at index", count(entry.CreateIndex)],
        ["Changed at index", count(entry.ModifyIndex)], ["Held by session", entry.Session], ["Locked so far", count(entry.LockIndex)],
      ]),
      forms, shown, why());
    paint();
  }

  /// `mine`: the text in the box. It may differ from the key's value after a conflict.
  function edit(mine) {
    const box = h("textarea", { class: "editor", rows: 14, spellcheck: "false", "aria-label": `Value of ${key}` });
    box.value = mine;
    const conflict = h("div", { role: "alert" });
    const save = async () => {
      try {
        if (await write(key, box.value, entry.ModifyIndex, entry.Flags)) {
          notice("action", "passing", `${key} was saved`);
          changed();
          await show();
          return;
        }
        await collide(box, conflict);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        conflict.replaceChildren(h("p", { class: "failed" }, error.message));
      }
    };
    element.replaceChildren(conflict, box, h("div", { class: "actions" },
      button("Save", save, { class: "primary", "data-act": "save" }), button("Cancel", show)));
    box.focus();
  }

  /// Somebody else changed it: shows what is there now, and keeps what was typed.
  async function collide(box, conflict) {
    const theirs = await read();
    const known = entry;
    entry = theirs ?? { ...known, ModifyIndex: 0 };
    const what = theirs === null ? "It was deleted meanwhile." : `Somebody else changed it meanwhile, at index ${count(theirs.ModifyIndex)}. It is now:`;
    conflict.replaceChildren(
      h("div", { class: "conflict" }, h("p", null, h("strong", null, "Not saved. "), what),
        theirs && h("pre", { class: "json" }, theirs.text ?? hex(theirs.value)),
        h("p", null, "“Save” writes yours over it; “Take theirs” drops yours."),
        theirs && button("Take theirs", show, { "data-act": "theirs" })));
    box.focus();
  }

  async function remove() {
    const sure = await confirm({ title: `Delete ${key}?`, text: `The key and its value (${bytes(entry.value.length)}) are gone then, for everybody.`, act: "Delete" });
    if (sure === null) return;
    try {
      const answer = await ask("DELETE", `${keyPath(key)}?cas=${entry.ModifyIndex}`);
      const done = (await textOf(answer)).trim() === "true";
      notice("action", done ? "passing" : "critical", done ? `${key} was deleted` : `${key} was not deleted: somebody else changed it meanwhile. It is shown as it is now.`);
      changed();
      await show();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      notice("action", "critical", `${key}: ${error.message}`);
    }
  }

  show();
  return { kind: "Key", title: key, element };
}

/// A form for a key that is not there yet; `made` is called with its name.
export function newKeyPanel(prefix, made) {
  const name = h("input", { type: "text", "aria-label": "Key", placeholder: "config/colour", spellcheck: "false" });
  name.value = prefix;
  const value = h("textarea", { class: "editor", rows: 10, "aria-label": "Value", spellcheck: "false" });
  const said = h("p", { class: "failed", role: "alert" });
  const save = async () => {
    if (name.value === "" || name.value.endsWith("/")) return setText(said, "A key has a name that does not end with a slash.");
    try {
      if (await write(name.value, value.value, 0)) made(name.value);
      else setText(said, "Not saved: this key is there already.");
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      setText(said, error.message);
    }
    return undefined;
  };
  return {
    kind: "New key", title: "",
    element: h("div", { class: "panel-body" }, name, value, said, h("div", { class: "actions" }, button("Save", save, { class: "primary", "data-act": "save" }))),
  };
}
