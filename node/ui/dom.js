// Elements are made here and nowhere else. Whatever users wrote becomes a text node or an attribute's
// value, never markup; the page's policy (Trusted Types) forbids the rest.

const SVG = "http://www.w3.org/2000/svg";

/// Makes an element. `props`: `class`, `on` (listeners by event), and attributes; `null` and `false`
/// leave an attribute out.
export function h(tag, props, ...children) {
  return dress(document.createElement(tag), props, children);
}

/// The same for SVG.
export function svg(tag, props, ...children) {
  return dress(document.createElementNS(SVG, tag), props, children);
}

function dress(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/// Sets a text, and touches nothing if it is the same.
export function setText(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/// Sets an attribute, and touches nothing if it is the same; `null` removes it.
export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value);
  }
}

// Shapes in a 16 × 16 box. Each status has a shape of its own, for those who see no colours.
const SHAPES = {
  passing: ["M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13z", "M5 8.200l2.1 2.100L11 6.2"],
  warning: ["M8 2 15 14H1z", "M8 6.500v3.500M8 12v.2"],
  critical: ["M5.3 1.500h5.400l3.8 3.800v5.400l-3.8 3.800H5.300l-3.8-3.800V5.300z", "M5.7 5.700l4.6 4.600M10.3 5.700l-4.6 4.6"],
  unknown: ["M8 1.500a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13z", "M5 8h6"],
  pin: ["", "M5.5 2h5M6.5 2v4.500L4 9.500h8L9.5 6.500V2M8 9.500V14"],
  close: ["", "M4 4l8 8M12 4l-8 8"],
  folder: ["", "M1.5 4h4.500l1.5 2h7v7h-13z"],
  key: ["", "M3 2h7l3 3v9H3zM10 2v3h3"],
  lock: ["", "M3.5 7.500h9v6h-9zM5.5 7.500V5a2.5 2.5 0 0 1 5 0v2.5"],
  leader: ["", "M2 12h12M2 12 1.5 5l4 3L8 3l2.5 5 4-3L14 12"],
};

/// A small picture that says nothing by itself: a word is always beside it, or in a label.
export function icon(name) {
  const [filled, drawn] = SHAPES[name] ?? SHAPES.unknown;
  return svg("svg", { viewBox: "0 0 16 16", class: `icon ${name}`, "aria-hidden": "true" },
    filled && svg("path", { d: filled, class: "shape" }),
    svg("path", { d: drawn, class: "line" }));
}

/// A word with the shape and the colour of a status; `renew` changes it to another one.
export function badge(level, word) {
  const element = h("span", { class: `badge ${level}` }, icon(level), h("span", null, word));
  return element;
}

/// Makes a badge show another level or word.
export function setBadge(element, level, word) {
  const wanted = `badge ${level}`;
  if (element.getAttribute("class") !== wanted) {
    element.setAttribute("class", wanted);
    element.firstChild.replaceWith(icon(level));
  }
  setText(element.lastChild, word);
}

/// A button; `title` where the text alone does not say it all.
export function button(text, act, props) {
  return h("button", { type: "button", ...props, on: { click: act } }, text);
}
