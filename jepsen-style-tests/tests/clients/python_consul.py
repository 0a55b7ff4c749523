"""Drives a cluster with the PyPI package python-consul; see player.py for the arguments."""

import consul
from consul import base

import player
import steps

player.play(
    "python-consul",
    lambda host, port: consul.Consul(host, port),
    steps.common(consul, base),
    {"node maintenance": steps.node_maintenance},
)
