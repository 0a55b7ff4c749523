"""What py-consul and python-consul have in common: the same methods of the same names.

A step is a function of a cluster and of a word that nobody else uses in names. It asserts what it
reads, so its first surprise ends the program. Steps do not depend on each other and leave nothing
behind, so many workers can play them at the same time, over and over.
"""

import base64
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

# Longer than an election and the grace that expiries get after one.
PATIENCE_S = 25
# Blocking queries are woken long before this; else the watch has failed.
WAIT_S = 60
LOOK_EVERY_S = 0.1


def until(what, condition):
    """Waits until `condition()` is true, and returns what it returned."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(LOOK_EVERY_S)


def same(found, wanted):
    """Asserts equality, and says what was found."""
    assert found == wanted, f"{found!r} is not {wanted!r}"


def raises(kind, call):
    """Asserts that `call()` raises `kind`, and returns the error."""
    try:
        result = call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}, but {result!r}")


class _Call:
    """A method to be: `cluster.kv.put` is a path until it is called at the next node."""

    def __init__(self, cluster, path):
        self._cluster = cluster
        self._path = path

    def __getattr__(self, name):
        return _Call(self._cluster, self._path + [name])

    def __call__(self, *args, **named):
        return self._cluster.call(self._cluster.next(), self._path, args, named)


class _Node:
    """The clients' methods, at one certain node."""

    def __init__(self, cluster, node, path=()):
        self._cluster = cluster
        self._node = node
        self._path = list(path)

    def __getattr__(self, name):
        return _Node(self._cluster, self._node, self._path + [name])

    def __call__(self, *args, **named):
        return self._cluster.call(self._node, self._path, args, named)


class Cluster:
    """One client for each node. `cluster.kv.put(...)` goes to the next node each time."""

    def __init__(self, clients):
        self._clients = clients
        self._turn = 0
        self.calls = 0
        self.slowest_s = 0.0

    def __getattr__(self, name):
        return _Call(self, [name])

    def next(self):
        self._turn += 1
        return self._turn

    def at(self, node):
        """The node with this number, counted from 1; beyond the last it begins again."""
        return _Node(self, node)

    def each(self):
        """Every node once."""
        return [self.at(node) for node in range(1, len(self._clients) + 1)]

    def call(self, node, path, args, named):
        target = self._clients[(node - 1) % len(self._clients)]
        for name in path:
            target = getattr(target, name)
        sent = time.monotonic()
        result = target(*args, **named)
        self.calls += 1
        # A blocking query takes as long as it is asked to: that is no latency.
        if "index" not in named:
            self.slowest_s = max(self.slowest_s, time.monotonic() - sent)
        return result


class Meanwhile:
    """A blocking query in a thread: leaving the block asserts that it was woken, and has its answer."""

    def __init__(self, query):
        self._query = query
        self._threads = ThreadPoolExecutor(1)

    def __enter__(self):
        self._asked = time.monotonic()
        self._running = self._threads.submit(self._query)
        # The change should find the query waiting; nothing is lost if it does not.
        time.sleep(LOOK_EVERY_S)
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            self.answer = self._running.result()
            took = time.monotonic() - self._asked
            assert took < WAIT_S, f"nobody woke the query in {took} s"
        self._threads.shutdown(wait=kind is None)


def status(c, _):
    def agreed():
        leaders = {node.status.leader() for node in c.each()}
        return len(leaders) == 1 and leaders.pop()

    leader = until("a leader that all nodes agree on", agreed)
    for node in c.each():
        peers = node.status.peers()
        same(len(peers), 3)
        assert leader in peers, (leader, peers)


def operator(c, _):
    def has_leader():
        servers = c.operator.raft_config()["Servers"]
        same(len(servers), 3)
        return [server for server in servers if server["Leader"]]

    same(len(until("a leader in the configuration", has_leader)), 1)


def agent(c, _):
    for node in c.each():
        myself = node.agent.self()
        same(myself["Config"]["Datacenter"], "dc1")
        # The agents of client hosts are listed too, this one's at least.
        roles = [member["Tags"]["role"] for member in node.agent.members()]
        same(roles.count("consul"), 3)
        assert "node" in roles, f"no agent of a client host in {roles}"
    same(c.catalog.datacenters(), ["dc1"])


def kv(c, word):
    key = f"{word}/a key/ünïcode"
    value = bytes(range(256))
    same(c.kv.put(key, value, flags=42), True)
    for node in c.each():
        index, entry = node.kv.get(key)
        same((entry["Key"], entry["Value"], entry["Flags"]), (key, value, 42))
        same(int(index), entry["ModifyIndex"])
    same(c.kv.put(f"{word}/none", None), True)
    same(c.kv.get(f"{word}/none")[1]["Value"], None)
    index, nothing = c.kv.get(f"{word}/missing")
    same(nothing, None)
    assert int(index) > 0, index
    c.kv.put(f"{word}/deep/1", "one")
    c.kv.put(f"{word}/deep/2", "two")
    same(c.kv.get(f"{word}/", keys=True, separator="/")[1],
         [f"{word}/a key/", f"{word}/deep/", f"{word}/none"])
    same([e["Value"] for e in c.kv.get(f"{word}/deep", recurse=True)[1]], [b"one", b"two"])
    same(c.kv.get(f"{word}/deep", recurse=True, consistency="consistent")[1][0]["Value"], b"one")
    same(c.kv.delete(f"{word}/deep/1"), True)
    same(c.kv.delete(f"{word}/", recurse=True), True)
    for node in c.each():
        same(node.kv.get(f"{word}/", recurse=True)[1], None)


def kv_cas(c, word):
    key = f"{word}/cas"
    same(c.kv.put(key, "first", cas=0), True)
    same(c.kv.put(key, "again", cas=0), False)
    old = c.kv.get(key)[1]["ModifyIndex"]
    same(c.kv.put(key, "second", cas=old), True)
    same(c.kv.put(key, "late", cas=old), False)
    entry = c.kv.get(key)[1]
    same(entry["Value"], b"second")
    assert entry["ModifyIndex"] > old, (entry, old)
    same(c.kv.delete(key, cas=old), False)
    same(c.kv.delete(key, cas=entry["ModifyIndex"]), True)
    same(c.kv.get(key)[1], None)


def first_row(query, index):
    """Watches what does not exist yet: that may wake once without need."""
    def watch():
        asked, rows = index, None
        while not rows:
            asked, rows = query(asked)
        return asked, rows
    return watch


def kv_watch(c, word):
    key = f"{word}/watched"

    def at_second(index):
        return c.at(2).kv.get(key, index=index, wait=f"{WAIT_S}s")

    index, _ = c.at(1).kv.get(key)
    with Meanwhile(first_row(at_second, index)) as watch:
        same(c.at(3).kv.put(key, b"one"), True)
    same(watch.answer[1]["Value"], b"one")
    index = watch.answer[0]
    with Meanwhile(lambda: at_second(index)) as watch:
        same(c.at(3).kv.put(key, b"two"), True)
    woken, entry = watch.answer
    same((entry["Value"], entry["ModifyIndex"]), (b"two", int(woken)))
    assert int(woken) > int(index), (woken, index)
    with Meanwhile(
        lambda: c.at(3).kv.get(word, recurse=True, index=woken, wait=f"{WAIT_S}s")
    ) as watch:
        same(c.at(1).kv.delete(key), True)
    gone, entries = watch.answer
    same(entries, None)
    assert int(gone) > int(woken), (gone, woken)


def services(c, word, check):
    service, instance = f"{word}-web", f"{word}-web-1"
    same(c.agent.service.register(service, service_id=instance, address="10.1.2.3", port=8080,
                                  tags=["blue", "v1"], check=check.ttl("60s")), True)
    for node in c.each():
        seen = node.agent.services()[instance]
        same((seen["Service"], seen["Address"], seen["Port"], seen["Tags"]),
             (service, "10.1.2.3", 8080, ["blue", "v1"]))
        rows = node.catalog.service(service)[1]
        same([(row["ServiceID"], row["ServicePort"]) for row in rows], [(instance, 8080)])
    same(sorted(c.catalog.services()[1][service]), ["blue", "v1"])
    same(len(c.catalog.service(service, tag="blue")[1]), 1)
    same(c.catalog.service(service, tag="green")[1], [])
    node_name = c.catalog.service(service)[1][0]["Node"]
    assert instance in c.catalog.node(node_name)[1]["Services"]
    assert node_name in [node["Node"] for node in c.catalog.nodes()[1]]
    heartbeats_of(c, service, f"service:{instance}")
    second_check(c, service, instance, check)
    same(c.agent.service.maintenance(instance, True, reason="oil change"), True)
    same(c.health.service(service, passing=True)[1], [])
    assert "oil change" in [check["Notes"] for check in c.health.checks(service)[1]]
    same(c.agent.service.maintenance(instance, False), True)
    same(len(c.health.service(service, passing=True)[1]), 1)
    same(c.agent.service.deregister(instance), True)
    for node in c.each():
        same(node.health.service(service)[1], [])
        assert service not in node.catalog.services()[1]
        assert instance not in node.agent.services()


def heartbeats_of(c, service, check_id):
    """Each heartbeat goes to another node, and all see what it said."""
    same(c.health.service(service, passing=True)[1], [])
    for beat, wanted, passing in [("ttl_warn", "warning", 0), ("ttl_fail", "critical", 0),
                                  ("ttl_pass", "passing", 1)]:
        note = f"said {wanted}"
        same(getattr(c.agent.check, beat)(check_id, notes=note), True)
        for node in c.each():
            same([(check["Status"], check["Output"]) for check in node.health.checks(service)[1]],
                 [(wanted, note)])
            same(len(node.health.service(service, passing=True)[1]), passing)
            same(node.agent.checks()[check_id]["Status"], wanted)
        assert check_id in [check["CheckID"] for check in c.health.state(wanted)[1]]
        assert check_id in [check["CheckID"] for check in c.health.state("any")[1]]


def second_check(c, service, instance, check):
    check_id = f"{instance}-disk"
    same(c.agent.check.register("disk", check=check.ttl("60s"), check_id=check_id,
                                notes="room on it", service_id=instance), True)
    same({check["Status"] for check in c.health.checks(service)[1]}, {"passing", "critical"})
    same(c.health.service(service, passing=True)[1], [])
    same(c.agent.check.deregister(check_id), True)
    same(len(c.health.service(service, passing=True)[1]), 1)


def ttl_expiry(c, word, check):
    service = f"{word}-mortal"
    ttl_s = 1
    same(c.agent.service.register(service, check=check.ttl(f"{ttl_s}s")), True)
    # For longer than the TTL: so it was the heartbeats that kept it alive.
    first = time.monotonic()
    while time.monotonic() < first + ttl_s * 1.5:
        beat = time.monotonic()
        same(c.agent.check.ttl_pass(f"service:{service}"), True)
        alive = c.health.service(service, passing=True)[1]
        # A machine that slept through the TTL proves nothing.
        assert len(alive) == 1 or time.monotonic() > beat + ttl_s, "critical before its time"
        time.sleep(0.3)
    beat = time.monotonic()
    same(c.agent.check.ttl_pass(f"service:{service}"), True)
    index, _ = c.health.service(service, passing=True)
    alive = True
    while alive:
        assert time.monotonic() < beat + PATIENCE_S, "still passing without heartbeats"
        index, alive = c.health.service(service, passing=True, index=index, wait="10s")
    took = time.monotonic() - beat
    assert took >= ttl_s, f"critical {took} s after a heartbeat, before its TTL"
    for node in c.each():
        same([check["Status"] for check in node.health.checks(service)[1]], ["critical"])
    same(c.agent.service.deregister(service), True)


def service_watch(c, word):
    service = f"{word}-watched"
    index, rows = c.at(1).health.service(service)
    same(rows, [])
    with Meanwhile(first_row(
        lambda asked: c.at(2).health.service(service, index=asked, wait=f"{WAIT_S}s"), index
    )) as watch:
        same(c.at(3).agent.service.register(service, port=1), True)
    woken, rows = watch.answer
    same([row["Service"]["Port"] for row in rows], [1])
    assert int(woken) > int(index), (woken, index)
    with Meanwhile(
        lambda: c.at(3).catalog.service(service, index=woken, wait=f"{WAIT_S}s")
    ) as watch:
        same(c.at(1).agent.service.deregister(service), True)
    same(watch.answer[1], [])
    assert int(watch.answer[0]) > int(woken), (watch.answer, woken)


def sessions(c, word, not_found):
    created = c.session.create(name=word, ttl=60, lock_delay=0)
    for node in c.each():
        index, info = node.session.info(created)
        same((info["ID"], info["Name"], info["TTL"], info["LockDelay"]), (created, word, "60s", 0))
        assert int(index) > 0, index
        assert created in [session["ID"] for session in node.session.list()[1]]
        assert created in [session["ID"] for session in node.session.node(info["Node"])[1]]
    same(c.session.renew(created)["ID"], created)
    same(c.session.destroy(created), True)
    for node in c.each():
        same(node.session.info(created)[1], None)
        raises(not_found, lambda node=node: node.session.renew(created))


def lock(c, word):
    """Taken through node 1, renewed through node 2, contended through node 3."""
    key = f"{word}/lock"
    holder = c.at(1).session.create(name="holder", ttl=30, lock_delay=0)
    same(c.at(1).kv.put(key, "mine", acquire=holder), True)
    same(c.at(2).session.renew(holder)["ID"], holder)
    rival = c.at(3).session.create(name="rival", ttl=30, lock_delay=0)
    same(c.at(3).kv.put(key, "no, mine", acquire=rival), False)
    for node in c.each():
        entry = node.kv.get(key)[1]
        same((entry["Session"], entry["LockIndex"], entry["Value"]), (holder, 1, b"mine"))
    same(c.at(3).kv.put(key, "let go", release=rival), False)
    same(c.at(2).kv.put(key, "let go", release=holder), True)
    assert "Session" not in c.at(1).kv.get(key)[1]
    index, _ = c.at(1).kv.get(key)
    with Meanwhile(lambda: c.at(1).kv.get(key, index=index, wait=f"{WAIT_S}s")) as watch:
        same(c.at(3).kv.put(key, "at last", acquire=rival), True)
    same((watch.answer[1]["Session"], watch.answer[1]["LockIndex"]), (rival, 2))
    same(c.at(2).session.destroy(rival), True)
    for node in c.each():
        assert "Session" not in node.kv.get(key)[1]
    same(c.session.destroy(holder), True)
    same(c.kv.delete(key), True)


def lock_delay(c, word):
    key, delay_s = f"{word}/delayed", 1
    gone = c.session.create(ttl=30, lock_delay=delay_s, behavior="delete")
    heir = c.session.create(ttl=30)
    same(c.kv.put(key, "locked", acquire=gone), True)
    destroyed = time.monotonic()
    same(c.session.destroy(gone), True)
    for node in c.each():
        same(node.kv.get(key)[1], None)
    until("the lock is free again", lambda: c.kv.put(key, "inherited", acquire=heir))
    took = time.monotonic() - destroyed
    assert took >= delay_s, f"locked again {took} s after its holder was destroyed"
    same(c.session.destroy(heir), True)
    same(c.kv.delete(key), True)


def events(c, word):
    name = f"{word}-deploy"
    index, _ = c.at(1).event.list(name)
    fired = c.at(2).event.fire(name, "1609030")
    same((fired["Name"], str(uuid.UUID(fired["ID"]))), (name, fired["ID"]))

    def arrived(node):
        return [e for e in node.event.list(name)[1] if e["ID"] == fired["ID"]]

    for node in c.each():
        same([e["Payload"] for e in until("the event", lambda n=node: arrived(n))], [b"1609030"])
    assert int(index) != int(c.event.list(name)[0]), "the index of events stood still"


def txn(c, word, client_error):
    def write(verb, key, value="", **more):
        coded = base64.b64encode(value.encode()).decode()
        return {"KV": {"Verb": verb, "Key": f"{word}/{key}", "Value": coded, **more}}

    done = c.txn.put([write("set", "a", "1"), write("set", "b", "2"), write("get", "a")])
    same(done["Errors"], None)
    same(base64.b64decode(done["Results"][2]["KV"]["Value"]), b"1")
    index = c.kv.get(f"{word}/a")[1]["ModifyIndex"]
    refused = raises(client_error, lambda: c.txn.put(
        [write("set", "b", "3"), write("cas", "a", "4", Index=index + 1)]))
    assert str(refused).startswith("409 "), refused
    for node in c.each():
        same([e["Value"] for e in node.kv.get(f"{word}/", recurse=True)[1]], [b"1", b"2"])
    same(c.txn.put([write("cas", "a", "5", Index=index), write("delete-tree", "b")])["Errors"], None)
    same([e["Value"] for e in c.kv.get(f"{word}/", recurse=True)[1]], [b"5"])
    same(c.kv.delete(f"{word}/", recurse=True), True)


def catalog(c, word):
    node_name = f"{word}-host"
    same(c.catalog.register(node_name, "10.9.9.9",
                            service={"Service": f"{word}-db", "ID": "db1", "Port": 5432},
                            check={"Name": "up", "CheckID": "up", "ServiceID": "db1",
                                   "Status": "passing"}), True)
    for node in c.each():
        found = node.catalog.node(node_name)[1]
        same(found["Node"]["Address"], "10.9.9.9")
        same(found["Services"]["db1"]["Port"], 5432)
        same([check["CheckID"] for check in node.health.node(node_name)[1]], ["up"])
        same(len(node.health.service(f"{word}-db", passing=True)[1]), 1)
    same(c.catalog.deregister(node_name, check_id="up"), True)
    same(c.health.node(node_name)[1], [])
    same(c.catalog.deregister(node_name), True)
    for node in c.each():
        assert node_name not in [row["Node"] for row in node.catalog.nodes()[1]]
        same(node.catalog.service(f"{word}-db")[1], [])


def query(c, word):
    service = f"{word}-asked"
    same(c.agent.service.register(service, service_id=f"{service}-1", port=7), True)
    made = c.query.create(service, name=f"{word}-query", onlypassing=True, ttl="10s")["ID"]
    for node in c.each():
        same(node.query.get(made)[0]["Service"]["Service"], service)
        # These clients make every query a template, and a template is executed by name only.
        nodes = node.query.execute(f"{word}-query")["Nodes"]
        same([row["Service"]["Port"] for row in nodes], [7])
        same(len(node.query.execute(f"{word}-query", limit=1)["Nodes"]), 1)
        assert made in [row["ID"] for row in node.query.list()]
    same(c.query.explain(f"{word}-query")["Query"]["Service"]["Service"], service)
    same(c.query.update(made, f"{service}-other", name=f"{word}-query"), True)
    same(c.query.execute(f"{word}-query")["Nodes"], [])
    same(c.query.delete(made), True)
    assert made not in [row["ID"] for row in c.query.list()]
    same(c.agent.service.deregister(f"{service}-1"), True)


def coordinates(c, _):
    for node in c.each():
        assert isinstance(node.coordinate.datacenters(), list)
        index, rows = node.coordinate.nodes()
        assert int(index) > 0 and isinstance(rows, list), (index, rows)


def node_maintenance(c, word):
    """Not for company: it takes out every service of the host."""
    service = f"{word}-out"
    same(c.agent.service.register(service, port=1), True)
    same(c.agent.maintenance(True, reason="new roof"), True)
    for node in c.each():
        same(node.health.service(service, passing=True)[1], [])
    same(c.agent.maintenance(False), True)
    for node in c.each():
        same(len(node.health.service(service, passing=True)[1]), 1)
    same(c.agent.service.deregister(service), True)


def common(consul, errors):
    """The steps that may be played at the same time, by name; `errors` has the package's errors."""
    return {
        "status": status,
        "operator": operator,
        "agent": agent,
        "kv": kv,
        "kv: cas": kv_cas,
        "kv: watch": kv_watch,
        "services and heartbeats": lambda c, word: services(c, word, consul.Check),
        "a TTL that runs out": lambda c, word: ttl_expiry(c, word, consul.Check),
        "services: watch": service_watch,
        "sessions": lambda c, word: sessions(c, word, errors.NotFound),
        "lock": lock,
        "lock delay": lock_delay,
        "events": events,
        "txn": lambda c, word: txn(c, word, errors.ClientError),
        "catalog": catalog,
        "query": query,
        "coordinates": coordinates,
    }
