// Drives a cluster with the npm package consul.
//
//     node node_consul.cjs once URL,URL,URL
//     node node_consul.cjs loop URL,URL
//
// Plays steps once, or by several workers over and over until standard input ends. A step asserts what
// it reads, so its first surprise ends the program with 1. Prints a line after each step and, at the
// end, one line of JSON: how many calls were made, and how long the slowest of them took.
"use strict";

const assert = require("node:assert/strict");
const timers = require("node:timers/promises");
const Consul = require("consul");

const WORKERS = 3;
// Longer than an election and the grace that expiries get after one.
const PATIENCE_MS = 25_000;
const LOOK_EVERY_MS = 100;
// What the package makes of a body that is `false`.
const REFUSED = undefined;

/** One client for each node. `cluster.any.kv.get(...)` goes to the next node each time. */
class Cluster {
  constructor(urls) {
    this.clients = urls.map((url) => new Consul({ baseUrl: `${url}/v1` }));
    this.turn = 0;
    this.calls = 0;
    this.slowestMs = 0;
    this.any = this.#path(() => ++this.turn, []);
  }

  /** The node with this number, counted from 1; beyond the last it begins again. */
  at(node) {
    return this.#path(() => node, []);
  }

  each() {
    return this.clients.map((_, position) => this.at(position + 1));
  }

  client(node) {
    return this.clients[(node - 1) % this.clients.length];
  }

  /** `any.kv.get` is a path until it is called; only then a node is picked. */
  #path(pick, names) {
    return new Proxy(() => {}, {
      get: (_, name) => this.#path(pick, [...names, name]),
      apply: (_, __, args) => this.#call(this.client(pick()), names, args),
    });
  }

  async #call(client, names, args) {
    const method = names.at(-1);
    const owner = names.slice(0, -1).reduce((object, name) => object[name], client);
    const sent = performance.now();
    const result = await owner[method](...args);
    this.calls += 1;
    this.slowestMs = Math.max(this.slowestMs, performance.now() - sent);
    return result;
  }

  /**
   * Watches at one node. `next()` is the next change, with its index; `first()` the first one that shows
   * something, as what does not exist yet may wake once without need.
   */
  watch(node, pick, options) {
    const client = this.client(node);
    const watch = client.watch({ method: pick(client), options, maxAttempts: 0 });
    const changes = [];
    const waiting = [];
    const hand = (change) => (waiting.length ? waiting.shift()(change) : changes.push(change));
    watch.on("change", (data, response) => {
      this.calls += 1;
      hand({ data, index: BigInt(response.headers["x-consul-index"]) });
    });
    watch.on("error", (error) => hand({ error }));
    const next = async () => {
      const change = changes.shift() ?? new Promise((resolve) => waiting.push(resolve));
      const { error, ...rest } = await within("a change", change);
      if (error) throw error;
      return rest;
    };
    const first = async () => {
      for (;;) {
        const change = await next();
        if (change.data !== undefined && change.data.length !== 0) return change;
      }
    };
    return { next, first, end: () => watch.end() };
  }
}

async function within(what, promise) {
  const enough = new AbortController();
  const late = timers.setTimeout(PATIENCE_MS, undefined, { signal: enough.signal }).then(() => {
    throw new Error(`not within ${PATIENCE_MS} ms: ${what}`);
  });
  late.catch(() => {});
  try {
    return await Promise.race([promise, late]);
  } finally {
    enough.abort();
  }
}

async function until(what, condition) {
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    const result = await condition();
    if (result) return result;
    assert(performance.now() < deadline, `not within ${PATIENCE_MS} ms: ${what}`);
    await timers.setTimeout(LOOK_EVERY_MS);
  }
}

const same = assert.deepEqual;

const steps = {
  async status(c) {
    const leader = await until("a leader that all nodes agree on", async () => {
      const leaders = new Set(await Promise.all(c.each().map((node) => node.status.leader())));
      return leaders.size === 1 && [...leaders][0];
    });
    for (const node of c.each()) {
      const peers = await node.status.peers();
      same(peers.length, 3);
      assert(peers.includes(leader), `${leader} is none of ${peers}`);
    }
  },

  async agent(c) {
    for (const node of c.each()) {
      same((await node.agent.self()).Config.Datacenter, "dc1");
      // The agents of client hosts are listed too, this one's at least.
      const members = await node.agent.members();
      same(members.filter((member) => member.Tags.role === "consul").length, 3);
      assert(members.some((member) => member.Tags.role === "node"), "no agent of a client host");
    }
    same(await c.any.catalog.datacenters(), ["dc1"]);
  },

  async kv(c, word) {
    const key = `${word}/a key/ünïcode`;
    const value = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
    same(await c.any.kv.set({ key, value, flags: 42 }), true);
    for (const node of c.each()) {
      const entry = await node.kv.get({ key, buffer: true });
      same([entry.Key, entry.Value, entry.Flags], [key, value, 42]);
      same(await node.kv.get({ key, raw: true }), value);
    }
    same(await c.any.kv.get(`${word}/missing`), undefined);
    await c.any.kv.set(`${word}/deep/1`, "one");
    await c.any.kv.set(`${word}/deep/2`, "two");
    const keys = await c.any.kv.keys({ key: `${word}/`, separator: "/" });
    same(keys, [`${word}/a key/`, `${word}/deep/`]);
    const deep = await c.any.kv.get({ key: `${word}/deep`, recurse: true, consistent: true });
    same(deep.map((entry) => entry.Value), ["one", "two"]);
    same(await c.any.kv.del(`${word}/deep/1`), true);
    same(await c.any.kv.del({ key: `${word}/`, recurse: true }), true);
    for (const node of c.each()) {
      same(await node.kv.get({ key: `${word}/`, recurse: true }), undefined);
    }
  },

  async "kv: cas"(c, word) {
    const key = `${word}/cas`;
    same(await c.any.kv.set({ key, value: "first", cas: "0" }), true);
    same(await c.any.kv.set({ key, value: "again", cas: "0" }), REFUSED);
    const old = (await c.any.kv.get(key)).ModifyIndex;
    same(await c.any.kv.set({ key, value: "second", cas: old }), true);
    same(await c.any.kv.set({ key, value: "late", cas: old }), REFUSED);
    const entry = await c.any.kv.get(key);
    same(entry.Value, "second");
    assert(entry.ModifyIndex > old, "an index fell");
    same(await c.any.kv.del({ key, cas: old }), REFUSED);
    same(await c.any.kv.del({ key, cas: entry.ModifyIndex }), true);
    same(await c.any.kv.get(key), undefined);
  },

  async "kv: watch"(c, word) {
    const key = `${word}/watched`;
    const watch = c.watch(2, (client) => client.kv.get, { key });
    let { index } = await watch.next();
    for (const [value, next] of [["one", watch.first], ["two", watch.next]]) {
      same(await c.at(3).kv.set(key, value), true);
      const change = await next();
      same(change.data.Value, value);
      same(change.index, BigInt(change.data.ModifyIndex));
      assert(change.index > index, `${change.index} after ${index}`);
      index = change.index;
    }
    same(await c.at(1).kv.del(key), true);
    const gone = await watch.next();
    same(gone.data, undefined);
    assert(gone.index > index, `${gone.index} after ${index}`);
    watch.end();
  },

  async "services and heartbeats"(c, word) {
    const [service, id] = [`${word}-web`, `${word}-web-1`];
    await c.any.agent.service.register({
      name: service, id, address: "10.1.2.3", port: 8080, tags: ["blue", "v1"],
      meta: { version: "7" }, taggedaddresses: { lan: { address: "10.0.0.7", port: 70 } },
      check: { ttl: "60s" },
    });
    for (const node of c.each()) {
      const seen = (await node.agent.services())[id];
      same([seen.Service, seen.Address, seen.Port], [service, "10.1.2.3", 8080]);
      same(seen.Meta, { version: "7" });
      same(seen.TaggedAddresses.lan, { Address: "10.0.0.7", Port: 70 });
      const rows = await node.catalog.service.nodes(service);
      same(rows.map((row) => [row.ServiceID, row.ServicePort]), [[id, 8080]]);
      same((await node.catalog.services())[service].sort(), ["blue", "v1"]);
    }
    same((await c.any.catalog.service.nodes({ service, tag: "blue" })).length, 1);
    same(await c.any.catalog.service.nodes({ service, tag: "green" }), []);
    const filter = 'Service.Meta.version == "7"';
    same((await c.any.health.service({ service, filter })).length, 1);
    same(await c.any.health.service({ service, filter: filter.replace("7", "8") }), []);
    const host = (await c.any.catalog.service.nodes(service))[0].Node;
    assert(id in (await c.any.catalog.node.services(host)).Services);
    assert((await c.any.catalog.nodes()).some((node) => node.Node === host));
    await heartbeats(c, service, `service:${id}`);
    await secondCheck(c, service, id);
    await c.any.agent.service.maintenance({ id, enable: true, reason: "oil change" });
    same(await c.any.health.service({ service, passing: true }), []);
    assert((await c.any.health.checks(service)).some((check) => check.Notes === "oil change"));
    await c.any.agent.service.maintenance({ id, enable: false });
    same((await c.any.health.service({ service, passing: true })).length, 1);
    await c.any.agent.service.deregister(id);
    for (const node of c.each()) {
      same(await node.health.service(service), []);
      assert(!(service in (await node.catalog.services())));
      assert(!(id in (await node.agent.services())));
    }
  },

  async "a TTL that runs out"(c, word) {
    const [name, ttlMs] = [`${word}-mortal`, 1000];
    await c.any.agent.service.register({ name, check: { ttl: `${ttlMs}ms` } });
    // For longer than the TTL: so it was the heartbeats that kept it alive.
    const first = performance.now();
    while (performance.now() < first + ttlMs * 1.5) {
      const beat = performance.now();
      await c.any.agent.check.pass(`service:${name}`);
      const alive = await c.any.health.service({ service: name, passing: true });
      // A machine that slept through the TTL proves nothing.
      assert(alive.length === 1 || performance.now() > beat + ttlMs, "critical before its time");
      await timers.setTimeout(300);
    }
    const watch = c.watch(2, (client) => client.health.service, { service: name, passing: true });
    const beat = performance.now();
    await c.any.agent.check.pass(`service:${name}`);
    while ((await watch.next()).data.length > 0);
    const took = performance.now() - beat;
    assert(took >= ttlMs, `critical ${took} ms after a heartbeat, before its TTL`);
    watch.end();
    for (const node of c.each()) {
      same((await node.health.checks(name)).map((check) => check.Status), ["critical"]);
    }
    await c.any.agent.service.deregister(name);
  },

  async "services: watch"(c, word) {
    const name = `${word}-watched`;
    const health = c.watch(1, (client) => client.health.service, { service: name });
    const catalog = c.watch(2, (client) => client.catalog.service.nodes, { service: name });
    let { data, index } = await health.next();
    same([data, (await catalog.next()).data], [[], []]);
    await c.at(3).agent.service.register({ name, port: 1 });
    for (const [watch, port] of [
      [health, (row) => row.Service.Port],
      [catalog, (row) => row.ServicePort],
    ]) {
      const change = await watch.first();
      same(change.data.map(port), [1]);
      assert(change.index > index, `${change.index} after ${index}`);
    }
    await c.at(3).agent.service.deregister(name);
    for (const watch of [health, catalog]) {
      same((await watch.next()).data, []);
      watch.end();
    }
  },

  async sessions(c, word) {
    const { ID: id } = await c.any.session.create({ name: word, ttl: "60s", lockdelay: "0s" });
    for (const node of c.each()) {
      const info = await node.session.info(id);
      same([info.ID, info.Name, info.TTL, info.LockDelay], [id, word, "60s", 0]);
      assert((await node.session.list()).some((session) => session.ID === id));
      assert((await node.session.node(info.Node)).some((session) => session.ID === id));
    }
    same((await c.any.session.renew(id)).map((session) => session.ID), [id]);
    await c.any.session.destroy(id);
    for (const node of c.each()) {
      same(await node.session.get(id), undefined);
      await assert.rejects(node.session.renew(id), { statusCode: 404 });
    }
  },

  // Taken through node 1, renewed through node 2, contended through node 3.
  async lock(c, word) {
    const key = `${word}/lock`;
    const own = { ttl: "30s", lockdelay: "0s" };
    const { ID: holder } = await c.at(1).session.create({ name: "holder", ...own });
    same(await c.at(1).kv.set({ key, value: "mine", acquire: holder }), true);
    same((await c.at(2).session.renew(holder))[0].ID, holder);
    const { ID: rival } = await c.at(3).session.create({ name: "rival", ...own });
    same(await c.at(3).kv.set({ key, value: "no, mine", acquire: rival }), REFUSED);
    for (const node of c.each()) {
      const entry = await node.kv.get(key);
      same([entry.Session, entry.LockIndex, entry.Value], [holder, 1, "mine"]);
    }
    same(await c.at(3).kv.set({ key, value: "let go", release: rival }), REFUSED);
    const watch = c.watch(1, (client) => client.kv.get, { key });
    same((await watch.next()).data.Session, holder);
    same(await c.at(2).kv.set({ key, value: "let go", release: holder }), true);
    same((await watch.next()).data.Session, undefined);
    same(await c.at(3).kv.set({ key, value: "at last", acquire: rival }), true);
    const taken = (await watch.next()).data;
    same([taken.Session, taken.LockIndex], [rival, 2]);
    await c.at(2).session.destroy(rival);
    same((await watch.next()).data.Session, undefined);
    watch.end();
    for (const node of c.each()) same((await node.kv.get(key)).Session, undefined);
    await c.any.session.destroy(holder);
    same(await c.any.kv.del(key), true);
  },

  async "lock delay"(c, word) {
    const [key, delayMs] = [`${word}/delayed`, 1000];
    const { ID: gone } = await c.any.session.create({ lockdelay: "1s", behavior: "delete" });
    const { ID: heir } = await c.any.session.create({ ttl: "30s" });
    same(await c.any.kv.set({ key, value: "locked", acquire: gone }), true);
    const destroyed = performance.now();
    await c.any.session.destroy(gone);
    for (const node of c.each()) same(await node.kv.get(key), undefined);
    await until("the lock is free again", () =>
      c.any.kv.set({ key, value: "inherited", acquire: heir }));
    const took = performance.now() - destroyed;
    assert(took >= delayMs, `locked again ${took} ms after its holder was destroyed`);
    await c.any.session.destroy(heir);
    same(await c.any.kv.del(key), true);
  },

  async events(c, word) {
    const name = `${word}-deploy`;
    const watch = c.watch(1, (client) => client.event.list, { name });
    same((await watch.next()).data, []);
    const fired = await c.at(2).event.fire(name, "1609030");
    same((await watch.first()).data.map((event) => event.ID), [fired.ID]);
    watch.end();
    same([fired.Name, fired.Payload], [name, "1609030"]);
    for (const node of c.each()) {
      const seen = await until("the event", async () => {
        const events = (await node.event.list(name)).filter((event) => event.ID === fired.ID);
        return events.length > 0 && events;
      });
      same(seen.map((event) => event.Payload), ["1609030"]);
    }
  },

  async transaction(c, word) {
    const write = (verb, key, value, more) => ({
      KV: { Verb: verb, Key: `${word}/${key}`, Value: btoa(value ?? ""), ...more },
    });
    const values = async (node) =>
      (await node.kv.get({ key: `${word}/`, recurse: true })).map((entry) => entry.Value);
    const done = await c.any.transaction.create([
      write("set", "a", "1"), write("set", "b", "2"), write("get", "a"),
    ]);
    same(done.Errors, null);
    same(atob(done.Results[2].KV.Value), "1");
    const index = (await c.any.kv.get(`${word}/a`)).ModifyIndex;
    const refused = c.any.transaction.create([
      write("set", "b", "3"), write("cas", "a", "4", { Index: index + 1 }),
    ]);
    await assert.rejects(refused, { statusCode: 409 });
    for (const node of c.each()) same(await values(node), ["1", "2"]);
    await c.any.transaction.create([
      write("cas", "a", "5", { Index: index }), write("delete", "b"),
    ]);
    same(await values(c.any), ["5"]);
    same(await c.any.kv.del({ key: `${word}/`, recurse: true }), true);
  },

  async catalog(c, word) {
    const host = `${word}-host`;
    await c.any.catalog.register({
      node: host, address: "10.9.9.9", nodemeta: { word },
      service: { service: `${word}-db`, id: "db1", port: 5432 },
      check: { name: "up", checkid: "up", serviceid: "db1", status: "passing",
        definition: { tcp: "10.9.9.9:5432", intervalduration: "10s" } },
    });
    for (const node of c.each()) {
      const found = await node.catalog.node.services(host);
      same([found.Node.Address, found.Services.db1.Port], ["10.9.9.9", 5432]);
      same((await node.health.node(host)).map((check) => check.CheckID), ["up"]);
      same((await node.health.service({ service: `${word}-db`, passing: true })).length, 1);
      const mine = await node.catalog.nodes({ "node-meta": `word:${word}` });
      same(mine.map((row) => row.Node), [host]);
    }
    await c.any.catalog.deregister({ node: host, checkid: "up" });
    same(await c.any.health.node(host), []);
    await c.any.catalog.deregister(host);
    for (const node of c.each()) {
      assert(!(await node.catalog.nodes()).some((row) => row.Node === host));
      same(await node.catalog.service.nodes(`${word}-db`), []);
    }
  },

  async query(c, word) {
    const name = `${word}-asked`;
    await c.any.agent.service.register({ name, port: 7 });
    const { ID: query } = await c.any.query.create({
      name: `${word}-query`, service: { service: name, onlypassing: true }, dns: { ttl: "10s" },
    });
    for (const node of c.each()) {
      same((await node.query.get(query)).Service.Service, name);
      for (const asked of [query, `${word}-query`]) {
        const { Nodes: rows } = await node.query.execute(asked);
        same(rows.map((row) => row.Service.Port), [7]);
      }
      assert((await node.query.list()).some((row) => row.ID === query));
    }
    await c.any.query.update({ query, name: `${word}-query`, service: { service: "nobody" } });
    same((await c.any.query.execute(query)).Nodes, []);
    await c.any.query.destroy(query);
    assert(!(await c.any.query.list()).some((row) => row.ID === query));
    await c.any.agent.service.deregister(name);
  },
};

/** Steps that do not bear company. */
const alone = {
  async "node maintenance"(c, word) {
    const name = `${word}-out`;
    await c.any.agent.service.register({ name, port: 1 });
    await c.any.agent.maintenance({ enable: true, reason: "new roof" });
    for (const node of c.each()) {
      same(await node.health.service({ service: name, passing: true }), []);
    }
    await c.any.agent.maintenance(false);
    for (const node of c.each()) {
      same((await node.health.service({ service: name, passing: true })).length, 1);
    }
    await c.any.agent.service.deregister(name);
  },
};

/** Each heartbeat goes to another node, and all see what it said. */
async function heartbeats(c, service, id) {
  same(await c.any.health.service({ service, passing: true }), []);
  for (const [beat, status, passing] of [
    ["warn", "warning", 0], ["fail", "critical", 0], ["pass", "passing", 1],
  ]) {
    await c.any.agent.check[beat]({ id, note: `said ${status}` });
    for (const node of c.each()) {
      const checks = await node.health.checks(service);
      same(checks.map((check) => [check.Status, check.Output]), [[status, `said ${status}`]]);
      same((await node.health.service({ service, passing: true })).length, passing);
      same((await node.agent.checks())[id].Status, status);
    }
    assert((await c.any.health.state(status)).some((check) => check.CheckID === id));
    assert((await c.any.health.state("any")).some((check) => check.CheckID === id));
  }
}

async function secondCheck(c, service, id) {
  const check = { name: "disk", id: `${id}-disk`, ttl: "60s", notes: "room", serviceid: id };
  await c.any.agent.check.register(check);
  const statuses = (await c.any.health.checks(service)).map((row) => row.Status);
  same(statuses.sort(), ["critical", "passing"]);
  same(await c.any.health.service({ service, passing: true }), []);
  await c.any.agent.check.deregister(check.id);
  same((await c.any.health.service({ service, passing: true })).length, 1);
}

async function playStory(cluster, story, word) {
  for (const [number, [name, step]] of story.entries()) {
    await step(cluster, `${word}-${number}`);
    console.log(`step ${word}: ${name}`);
  }
}

async function playUntilTold(clusters, story, word) {
  let isOver = false;
  process.stdin.on("end", () => (isOver = true)).resume();
  const work = async (cluster, worker) => {
    // Each begins elsewhere in the story, so that a fault meets all kinds of steps.
    const first = Math.floor((worker * story.length) / clusters.length);
    const mine = [...story.slice(first), ...story.slice(0, first)];
    for (let number = 1; !isOver; number++) {
      await playStory(cluster, mine, `${word}-${worker}-${number}`);
      console.log(`story ${number} of worker ${worker}`);
    }
  };
  await Promise.all(clusters.map(work));
}

async function main([mode, urls]) {
  const count = mode === "once" ? 1 : WORKERS;
  const clusters = Array.from({ length: count }, () => new Cluster(urls.split(",")));
  const story = Object.entries(steps);
  // Names of their own in every run, for clusters that live longer.
  const word = `node-consul-${process.pid}`;
  if (mode === "once") {
    await playStory(clusters[0], [...story, ...Object.entries(alone)], word);
  } else {
    await playUntilTold(clusters, story, word);
  }
  const calls = clusters.reduce((sum, cluster) => sum + cluster.calls, 0);
  const slowest = Math.round(Math.max(...clusters.map((cluster) => cluster.slowestMs)));
  console.log(JSON.stringify({ calls, slowest_ms: slowest }));
}

main(process.argv.slice(2)).then(
  () => process.exit(0),
  (error) => {
    console.error(error.stack);
    process.exit(1);
  },
);
