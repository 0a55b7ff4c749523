"""Drives a cluster with the PyPI package py-consul; see player.py for the arguments."""

import consul
from consul import exceptions

import player
import steps
from steps import raises, same, until


def details(c, word):
    """What python-consul cannot say: weights, meta, tagged addresses, several checks, filters."""
    service, instance = f"{word}-full", f"{word}-full-1"
    lan = {"lan": {"address": "10.0.0.7", "port": 70}}
    same(c.agent.service.register(service, service_id=instance, port=70, meta={"version": "7"},
                                  weights={"Passing": 10, "Warning": 1}, tagged_addresses=lan,
                                  check=consul.Check.ttl("60s"),
                                  extra_checks=[consul.Check.ttl("90s")],
                                  replace_existing_checks=True), True)
    for node in c.each():
        found = node.agent.service_definition(instance)
        same((found["Meta"], found["Weights"]), ({"version": "7"}, {"Passing": 10, "Warning": 1}))
        same(found["TaggedAddresses"]["lan"], {"Address": "10.0.0.7", "Port": 70})
        same(len(node.health.checks(service)[1]), 2)
        rows = node.health.service(service, filter_expr='Service.Meta.version == "7"')[1]
        same([row["Service"]["ID"] for row in rows], [instance])
        same(node.health.service(service, filter_expr='Service.Meta.version == "8"')[1], [])
        same(list(node.agent.services(filter_expr=f'Service == "{service}"')), [instance])
    refused = raises(exceptions.ConsulException, lambda: c.catalog.nodes(filter_expr="no sense"))
    assert "Failed to create boolean expression evaluator" in str(refused), refused
    same(c.agent.service.deregister(instance), True)


def coordinate(c, word):
    host = f"{word}-far"
    same(c.catalog.register(host, "10.9.9.7"), True)
    place = {"Vec": [0.5] * 8, "Error": 0.1, "Adjustment": 0.0, "Height": 0.001}
    same(c.coordinate.update(host, place), True)
    for node in c.each():
        rows = until("the coordinate", lambda n=node: n.coordinate.node(host)[1])
        same([row["Coord"]["Vec"] for row in rows], [[0.5] * 8])
    same(c.catalog.deregister(host), True)


def autopilot(c, _):
    try:
        wanted = c.operator.autopilot_configuration()
    except exceptions.ConsulException:
        wanted = None
    if wanted is None:
        player.say("autopilot is not served")
        return
    for node in c.each():
        same(node.operator.autopilot_configuration(), wanted)


def snapshot(c, word):
    """Not for company: it takes everybody's state back."""
    key = f"{word}/kept"
    same(c.at(1).kv.put(key, "before"), True)
    saved = c.at(2).snapshot.save()
    same(c.at(3).kv.put(key, "after"), True)
    index, _ = c.at(1).kv.get(key)
    same(c.at(1).snapshot.restore(saved), True)
    for node in c.each():
        restored, entry = node.kv.get(key)
        same(entry["Value"], b"before")
        assert int(restored) >= int(index), "an index fell"
    same(c.kv.delete(key), True)


player.play(
    "py-consul",
    lambda host, port: consul.Consul(host, port),
    {
        **steps.common(consul, exceptions),
        "services: details": details,
        "coordinate update": coordinate,
        "autopilot": autopilot,
    },
    {"node maintenance": steps.node_maintenance, "snapshot": snapshot},
)
