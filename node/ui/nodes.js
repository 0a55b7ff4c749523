// The view of nodes: the servers, how far each one is, and who leads.

import { h, badge, setBadge, setText, setAttribute, button, icon } from "./dom.js";
import { bytes, count, plural } from "./format.js";
import { ask, get, members, textOf, Refused } from "./members.js";
import { Rows, textCell } from "./rows.js";
import { store, touch } from "./store.js";
import { look } from "./cluster.js";
import { confirm, notice } from "./dialog.js";

const EVERY_MS = 2_000;
const PATIENCE_MS = 3_000;
/// Hashing reads the whole state.
const HASH_EVERY_MS = 10_000;
const HASH_DIGITS = 12;

/// What each server said of itself, by name.
const said = new Map();

async function askOne(name, wantsHash) {
  const at = members.origin(name);
  if (at === null) return;
  const options = { at, patience: PATIENCE_MS };
  const before = said.get(name);
  try {
    const [self, metrics] = await Promise.all([
      get("/v1/agent/self?stale", options),
      ask("GET", "/metrics", options).then(textOf),
    ]);
    const hash = wantsHash ? await get("/v1/quorate/state-hash", options) : before?.hash;
    said.set(name, { self, figures: figures(metrics), hash });
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    said.set(name, { failed: error.message, hash: before?.hash });
  }
  touch();
}

/// The figures of `/metrics` that have no labels.
function figures(text) {
  const found = {};
  for (const line of text.split("\n")) {
    const match = /^quorate_(\w+) (-?[\d.e+]+)$/.exec(line);
    if (match) found[match[1]] = Number(match[2]);
  }
  return found;
}

const figure = (server, name) => said.get(server.Node)?.figures?.[name] ?? Number.NaN;

/// The last entry that anybody has.
const last = () => Math.max(0, ...(store.cluster?.raft ?? []).map((server) =>
  Math.max(figure(server, "raft_last_log_index") || 0, store.cluster.health.get(server.Node)?.LastIndex ?? 0)));

function role(server) {
  if (server.Node === store.leader) return "leader";
  return server.Voter ? "voter" : "learner";
}

function stateCell() {
  const shown = badge("unknown", "");
  return [h("div", null, shown), (server) => {
    const health = store.cluster.health.get(server.Node);
    const answers = said.get(server.Node);
    if (health === undefined) setBadge(shown, "unknown", "unknown");
    else if (health.Healthy) setBadge(shown, "passing", "healthy");
    else setBadge(shown, "critical", health.NodeStatus === "failed" ? "failed" : "behind");
    setAttribute(shown, "title", answers?.failed ?? `The leader heard it ${health?.LastContact ?? "?"} ago`);
  }];
}

function roleCell() {
  const text = h("span");
  const crown = icon("leader");
  return [h("div", null, h("span", { class: "badge" }, crown, text)), (server) => {
    const is = role(server);
    setText(text, is);
    setAttribute(crown, "hidden", is !== "leader");
  }];
}

function lag(server) {
  const applied = figure(server, "raft_applied_index");
  return Number.isFinite(applied) ? plural(Math.max(0, last() - applied), "entry", "entries") : "-";
}

const log = (server) => {
  const [end, purged] = [figure(server, "raft_last_log_index"), figure(server, "raft_purged_index")];
  return Number.isFinite(end) ? plural(end - purged, "entry", "entries") : "-";
};

const at = (value, words) => (Number.isFinite(value) ? words(value) : "-");

/// The hash of the state, and whether another server at the same entry has the same.
function hashCell() {
  const shown = badge("unknown", "");
  return [h("div", null, shown), (server) => {
    const own = said.get(server.Node)?.hash;
    if (own === undefined) return setBadge(shown, "unknown", "-");
    const others = [...said].filter(([name, { hash }]) => name !== server.Node && hash?.AppliedIndex === own.AppliedIndex);
    const differs = others.some(([, { hash }]) => hash.Hash !== own.Hash);
    const level = differs ? "critical" : others.length > 0 ? "passing" : "unknown";
    setBadge(shown, level, own.Hash.slice(0, HASH_DIGITS));
    const same = differs ? "another server at this entry has another state" : others.length > 0 ? `the same as ${others.map(([name]) => name).join(", ")}` : "no other server was at this entry";
    setAttribute(shown, "title", `${own.Hash} at entry ${count(own.AppliedIndex)}: ${same}`);
    return undefined;
  }];
}

async function lead(server) {
  const sure = await confirm({
    title: `Make ${server.Node} the leader?`,
    text: `${store.leader ?? "The leader"} hands leadership over. Requests wait for the new leader; none fails.`,
    act: "Transfer leadership",
  });
  if (sure === null) return;
  try {
    await ask("PUT", `/v1/operator/raft/transfer-leader?id=${encodeURIComponent(server.ID)}`);
    notice("action", "passing", `${server.Node} was asked to lead`);
    await look();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    notice("action", "critical", `${server.Node} does not lead: ${error.message}`);
  }
}

function actionCell() {
  let server = null;
  const press = button("Make leader", () => lead(server), { "data-act": "lead" });
  return [h("div", null, press), (shown) => {
    server = shown;
    const isFit = server.Voter && store.cluster.health.get(server.Node)?.Healthy === true;
    press.hidden = !isFit || server.Node === store.leader || store.leader === null;
    setAttribute(press, "aria-label", `Make ${server.Node} the leader`);
  }];
}

/// Makes the view.
export function nodes(root) {
  const rows = new Rows({
    name: "nodes", label: "Nodes",
    key: (server) => server.ID,
    className: (server) => (store.cluster.health.get(server.Node)?.Healthy === false ? "critical" : ""),
    columns: [
      { id: "state", title: "State", make: stateCell },
      { id: "node", title: "Node", make: textCell((server) => server.Node) },
      { id: "role", title: "Role", make: roleCell },
      { id: "address", title: "HTTP address", make: textCell((server) => members.origin(server.Node)?.replace("http://", "") ?? "-") },
      { id: "rpc", title: "RPC address", make: textCell((server) => server.Address) },
      { id: "version", title: "Version", make: textCell((server) => said.get(server.Node)?.self?.Meta["quorate-version"] ?? "-") },
      { id: "last", title: "Last / applied", make: textCell((server) => at(figure(server, "raft_last_log_index"), (value) => `${count(value)} / ${count(figure(server, "raft_applied_index"))}`)) },
      { id: "lag", title: "Lag", make: textCell(lag) },
      { id: "log", title: "Log", make: textCell(log) },
      { id: "snapshot", title: "Snapshot at", make: textCell((server) => at(figure(server, "raft_snapshot_index"), (value) => (value === 0 ? "none yet" : count(value)))) },
      { id: "disk", title: "Disk free", make: textCell((server) => at(figure(server, "disk_free_bytes"), bytes)) },
      { id: "hash", title: "State hash", make: hashCell },
      { id: "action", title: "", make: actionCell },
    ],
  });
  const summary = h("span", { class: "summary", role: "status" });
  root.append(h("div", { class: "toolbar" }, h("h2", { class: "plain" }, "Servers of the cluster"), summary), rows.element);
  let turns = 0;
  const poll = () => {
    if (document.hidden || store.cluster === null) return;
    const wantsHash = turns++ % (HASH_EVERY_MS / EVERY_MS) === 0;
    for (const server of store.cluster.raft) askOne(server.Node, wantsHash);
  };
  const timer = setInterval(poll, EVERY_MS);
  poll();
  return {
    leave: () => clearInterval(timer),
    draw() {
      const servers = store.cluster?.raft ?? [];
      if (turns === 0 && servers.length > 0) poll();
      setText(summary, plural(servers.length, "server"));
      rows.set(servers, "Loading …");
    },
  };
}
