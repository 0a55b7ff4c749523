// What the page knows: instances and recent changes as the stream tells them. Views read it; nothing else
// writes it. Any number of changes lead to one drawing, in the next frame.

import { members, get, Refused } from "./members.js";
import { Stream } from "./stream.js";
import { limits, judge, SILENT } from "./level.js";
import { natural } from "./format.js";

/// Changes that are kept for the view of events.
const EVENTS_MAX = 2_000;
/// Records of the past that are loaded at the beginning; the server gives no more at once.
const PAST_MAX = 1_000;
/// Changes per minute are shown for so many minutes.
export const MINUTES = 20;
const MINUTE_MS = 60_000;
/// Where a stream sends no heartbeats, ages are asked for this often, and less often for many instances.
const AGES_MS = 2_000;
const AGES_MS_PER_ROW = 1;
/// The servers' own service: its rows say where they serve HTTP.
const SERVERS = "consul";

const PINS = "quorate.pins";

const keyOf = (node, id) => `${node}\u0000${id}`;

export const store = {
  /// Instances by node and id.
  rows: new Map(),
  /// Grows whenever a row comes, changes or goes; heartbeats change none.
  version: 0,
  /// The newest changes, oldest first.
  events: [],
  /// Number of the newest record, and newest index, that are known.
  seq: 0,
  index: 0,
  leader: undefined,
  stream: { kind: "connecting", at: members.current },
  complete: false,
  pins: new Set(readPins()),
  onlyPinned: false,
  /// What the servers said of themselves (see cluster.js).
  cluster: null,
  /// Whether changes of keys and locks are followed as well.
  withKeys: false,
  /// Changes by service: counts by minute.
  changes: new Map(),
};

const drawers = new Set();
let isDrawing = false;

/// Has `draw` called in the next frame after something changed; returns what ends that.
export function onDraw(draw) {
  drawers.add(draw);
  return () => drawers.delete(draw);
}

/// Something changed.
export function touch() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    for (const draw of drawers) draw();
  });
}

// ---- ages ------------------------------------------------------------------------------------

/// Ages stand still while nothing is heard of the cluster, and while it has no leader: then its own time
/// stands still as well.
let stoodStill = 0;
let stillSince = null;

/// The clock by which heartbeats age.
export function now() {
  return (stillSince ?? performance.now()) - stoodStill;
}

/// Whether ages stand still.
export const isStill = () => stillSince !== null;

function setStill() {
  const still = store.stream.kind !== "live" || store.leader === null;
  if (still && stillSince === null) stillSince = performance.now();
  if (!still && stillSince !== null) {
    stoodStill += performance.now() - stillSince;
    stillSince = null;
  }
}

/// Age of a row's last heartbeat in milliseconds; `null`: it has none.
export const ageOf = (row) => (row.heard === null ? null : Math.max(0, now() - row.heard));

/// A row's level at this moment of that clock. Ten thousand are asked for in one frame.
export const levelOf = (row, at) => judge(row.Status, row.heard === null ? null : at - row.heard, row.limits);

/// A row's level and the word for it.
export function stateOf(row) {
  const level = levelOf(row, now());
  return { level, word: level === row.Status ? level : (SILENT[level] ?? row.Status) };
}

// ---- frames of the stream --------------------------------------------------------------------

let building = null;

function toRow(row) {
  row.key = keyOf(row.Node, row.ID);
  row.heard = row.AgeMs === undefined || row.AgeMs === null ? null : now() - row.AgeMs;
  row.limits = limits(row);
  row.order = natural(`${row.Service}\u0000${row.ID}\u0000${row.Node}`);
  row.text = [row.ID, row.Service, row.Node, row.Process, row.Address, row.Port, ...(row.Tags ?? [])].join(" ").toLowerCase();
  return row;
}

const told = {
  snapshot(page) {
    building ??= new Map();
    for (const row of page.Instances) building.set(keyOf(row.Node, row.ID), toRow(row));
    store.seq = Math.max(store.seq, page.Seq);
    store.index = Math.max(store.index, page.Index);
    if (!page.Complete) return;
    store.rows = building;
    building = null;
    store.complete = true;
    store.version++;
    learnServers();
  },

  change({ Row, Rows, ...record }) {
    const rows = building ?? store.rows;
    store.version++;
    for (const row of [Row, ...(Rows ?? [])]) if (row) rows.set(keyOf(row.Node, row.ID), toRow(row));
    if (Row === null && record.ID) rows.delete(keyOf(record.Node, record.ID));
    note(record, Date.now());
    if (record.Service === SERVERS || record.Kind.startsWith("server.")) learnServers();
  },

  beats({ Beats }) {
    for (const beat of Beats) {
      const row = store.rows.get(keyOf(beat.Node, beat.ID));
      if (row === undefined) continue;
      row.heard = now() - beat.AgeMs;
      if (beat.Counter !== undefined) row.Counter = beat.Counter;
      if (beat.Pid !== undefined) row.Pid = beat.Pid;
    }
  },

  leader({ Leader }) {
    led(Leader);
  },

  gap({ Since, Last }) {
    building = null;
    tell({ kind: "gap", since: Since, last: Last });
  },

  restored() {
    building = null;
    tell({ kind: "restored" });
  },

  moved({ Servers }) {
    for (const origin of Servers) if (!members.names.has(origin)) members.names.set(origin, origin.replace("http://", ""));
  },
};

/// This server leads; `null`: nobody does.
export function led(leader) {
  store.leader = leader;
  members.hasLeader = leader !== null;
  setStill();
}

function note(record, at) {
  store.seq = Math.max(store.seq, record.Seq);
  store.index = Math.max(store.index, record.Index);
  keep(record);
  if (store.events.length > EVENTS_MAX * 1.25) store.events.splice(0, store.events.length - EVENTS_MAX);
  if (record.Service) count(record.Service, at);
}

/// Puts a record where it belongs; two streams may bring them, or bring one twice.
function keep(record) {
  let place = store.events.length;
  while (place > 0 && store.events[place - 1].Seq > record.Seq) place--;
  if (store.events[place - 1]?.Seq !== record.Seq) store.events.splice(place, 0, record);
}

function count(service, at) {
  const minute = Math.floor(at / MINUTE_MS);
  let counts = store.changes.get(service);
  if (counts === undefined) store.changes.set(service, (counts = new Map()));
  counts.set(minute, (counts.get(minute) ?? 0) + 1);
  for (const old of counts.keys()) if (old <= minute - MINUTES) counts.delete(old);
}

/// Changes of a service in each of the last minutes, the present one last.
export function changesOf(service) {
  const counts = store.changes.get(service);
  const minute = Math.floor(Date.now() / MINUTE_MS);
  return Array.from({ length: MINUTES }, (_, place) => counts?.get(minute - MINUTES + 1 + place) ?? 0);
}

function learnServers() {
  const servers = [...store.rows.values()].filter((row) => row.Service === SERVERS && row.Meta?.http_addr);
  if (servers.length > 0) members.learn(servers.map((row) => ({ name: row.Node, address: row.Meta.http_addr })));
}

// ---- following -------------------------------------------------------------------------------

let stream = null;

/// Follows what is to be followed: everything, or the pinned services.
export function follow() {
  stream?.close();
  building = null;
  store.complete = false;
  const query = new URLSearchParams();
  if (store.onlyPinned) for (const name of store.pins) query.append("service", name);
  stream = new Stream(query,
    (event, data) => {
      told[event]?.(data);
      touch();
    },
    (state) => {
      store.stream = state;
      if (state.kind !== "live") building = null;
      setStill();
      if (state.kind === "live") movedTo(state.at);
      touch();
    });
}

let keyStream = null;

/// Follows changes of keys and locks from now on, or no longer.
export function followKeys(wanted) {
  store.withKeys = wanted;
  keyStream?.close();
  keyStream = null;
  if (!wanted) return;
  const query = new URLSearchParams([["kind", "key."], ["kind", "lock."]]);
  const tell = (event, data) => {
    if (event !== "change") return;
    const { Row, Rows, ...record } = data;
    note(record, Date.now());
    touch();
  };
  keyStream = new Stream(query, tell, () => {}, { last: store.seq, beats: false });
}

const listeners = new Set();
/// Has `hear` called with what the reader should know: `{ kind: "moved", from, to, seq }` when the page has gone
/// on at another server, `{ kind: "gap", since, last }`, `{ kind: "restored" }`.
export const onNews = (hear) => listeners.add(hear);

function tell(news) {
  for (const hear of listeners) hear(news);
}

let lastLive = members.current;
function movedTo(at) {
  if (at !== lastLive) tell({ kind: "moved", from: lastLive, to: at, seq: stream?.last ?? store.seq });
  lastLive = at;
}

/// Loads recent history, so that the events and the figures per minute do not begin empty.
export async function loadPast() {
  try {
    const since = Math.max(0, store.seq - PAST_MAX);
    const past = await get(`/v1/quorate/history?stale&since=${since}&limit=${PAST_MAX}`);
    const first = store.events[0]?.Seq ?? Infinity;
    const older = past.filter((record) => record.Seq < first);
    for (const record of older) if (record.Service) count(record.Service, Date.parse(record.At));
    store.events = [...older, ...store.events];
    touch();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
  }
}

/// Asks for the ages of heartbeats where the stream does not send them.
export async function keepAges() {
  for (;;) {
    const pause = AGES_MS + store.rows.size * AGES_MS_PER_ROW;
    await new Promise((done) => setTimeout(done, pause));
    if (document.hidden || stream === null || stream.beats || store.stream.kind !== "live") continue;
    try {
      const asked = performance.now();
      const rows = await get("/v1/quorate/instances?stale");
      const late = (performance.now() - asked) / 2;
      for (const fresh of rows) {
        const row = store.rows.get(keyOf(fresh.Node, fresh.ID));
        if (row === undefined || fresh.AgeMs === undefined || fresh.AgeMs === null) continue;
        row.heard = now() - fresh.AgeMs - late;
        row.Counter = fresh.Counter;
      }
      touch();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
    }
  }
}

// ---- pins ------------------------------------------------------------------------------------

function readPins() {
  try {
    const pins = JSON.parse(localStorage.getItem(PINS) ?? "[]");
    return Array.isArray(pins) ? pins.filter((name) => typeof name === "string") : [];
  } catch {
    return [];
  }
}

/// A stream takes so many services.
export const PINS_MAX = 100;

/// Pins a service, or unpins it.
export function togglePin(name) {
  if (!store.pins.delete(name) && store.pins.size < PINS_MAX) store.pins.add(name);
  try {
    localStorage.setItem(PINS, JSON.stringify([...store.pins]));
  } catch {
    // Without storage they last as long as the page.
  }
  if (store.pins.size === 0) setOnlyPinned(false);
  else if (store.onlyPinned) follow();
  touch();
}

/// Follows pinned services only, or all.
export function setOnlyPinned(only) {
  const wanted = only && store.pins.size > 0;
  if (wanted === store.onlyPinned) return;
  store.onlyPinned = wanted;
  follow();
  touch();
}
