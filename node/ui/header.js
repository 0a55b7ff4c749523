// The line that is always visible: cluster, this node, leader, quorum, index, lag, and the stream.

import { h, badge, button, setBadge, setText, setAttribute } from "./dom.js";
import { count, plural } from "./format.js";
import { members } from "./members.js";
import { store } from "./store.js";
import { quorum } from "./cluster.js";
import { confirm } from "./dialog.js";
import { hasToken, use } from "./token.js";

function fact(name, value) {
  return h("div", { class: `fact ${name.toLowerCase().replace(" ", "-")}` }, h("span", { class: "name" }, name), value);
}

const value = () => h("span", { class: "value" }, "–");

/// Makes the header, and returns what draws it anew.
export function header(root) {
  const [cluster, node, leader, index, lag] = [value(), value(), value(), value(), value()];
  const quorumBadge = badge("unknown", "–");
  const streamBadge = badge("unknown", "connecting");
  streamBadge.id = "stream";
  root.append(
    h("a", { class: "brand", href: "#/services", "aria-label": "Quorate, services" }, h("img", { src: "icon.svg", alt: "", width: 20, height: 20 }), "Quorate"),
    fact("Cluster", cluster), fact("Node", node), fact("Leader", leader), fact("Quorum", quorumBadge),
    fact("Index", index), fact("Lag", lag), fact("Stream", streamBadge),
    button(hasToken() ? "Token set" : "Token", askForToken, { class: "plain", "data-act": "token" }),
  );

  return () => {
    const about = store.cluster;
    const { stream } = store;
    if (about !== null) {
      setText(cluster, about.datacenter);
      setText(node, about.server);
      setAttribute(node, "title", `Quorate ${about.version}, at ${members.current}`);
      const { level, words } = quorum(about);
      setBadge(quorumBadge, level, words);
      setText(lag, about.lag === null ? "–" : plural(about.lag, "entry", "entries"));
      setAttribute(lag, "title", `This node has applied the log up to entry ${count(about.applied)}`);
    }
    const term = Number.isFinite(about?.term) ? ` · term ${count(about.term)}` : "";
    setText(leader, store.leader === undefined ? "–" : `${store.leader ?? "none"}${term}`);
    setAttribute(leader, "class", store.leader === null ? "value bad" : "value");
    setText(index, store.index === 0 ? "–" : count(store.index));
    const [level, words] = told(stream);
    setBadge(streamBadge, level, words);
    setAttribute(streamBadge, "title", `Record ${count(store.seq)} was the last one`);
  };
}

/// Where the cluster asks for tokens, the page needs one. It stays in this tab.
async function askForToken() {
  const text = "The secret of a token; empty: none. This tab keeps it until it is closed, and sends it to the servers of this cluster only.";
  const secret = await confirm({ title: "Use a token", text, act: "Use it", field: "Secret", secret: true });
  if (secret !== null) use(secret.trim());
}

function told({ kind, at, until, why }) {
  const name = members.name(at);
  if (kind === "live") return ["passing", `live, at ${name}`];
  if (kind === "connecting") return ["warning", `connecting to ${name}`];
  const seconds = Math.max(0, Math.ceil((until - Date.now()) / 1_000));
  return ["critical", `${why}; trying ${name} in ${seconds} s`];
}
