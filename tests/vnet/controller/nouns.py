"""An object of every noun, as a toolstack makes, changes and removes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vnet import api

HTTP = {"name": "http", "direction": "ingress", "protocol": "tcp", "ports": [80, "443-445"]}
TRUNK0 = {"name": "trunk0", "members": ["eth1"]}


@dataclass(frozen=True)
class Sample:
    """body: makes the object. other: makes another one under its name, which differs in `differs`.

    change: fields with their new values, with the disruption of that while nothing is plugged. options: the body for the CLI.
    """

    noun: str
    name: str
    body: dict[str, Any]
    other: dict[str, Any]
    differs: str
    change: dict[str, Any]
    disruption: str
    options: tuple[str, ...]
    changed_options: tuple[str, ...] = field(default=())

    @property
    def resource(self) -> api.Resource:
        return api.RESOURCES[self.noun]

    @property
    def method(self) -> str:
        """The noun in names of the clients' methods."""
        return self.noun.replace("-", "_")


SAMPLES = (
    Sample(
        "host",
        "xen9",
        {"address": "10.99.0.9", "uplinks": [TRUNK0]},
        {"address": "10.99.0.10", "uplinks": [TRUNK0]},
        "address",
        {"address": "10.99.0.19"},
        "flows",
        ("--address", "10.99.0.9", "--uplink", "name=trunk0 members=eth1"),
        ("--address", "10.99.0.19"),
    ),
    Sample(
        "network",
        "blue",
        {"type": "vxlan", "hosts": ["xen1", "xen2"]},
        {"type": "gre"},
        "type",
        {"mtu": 1400, "hosts": None},
        "none",
        ("--type", "vxlan", "--host", "xen1,xen2"),
        ("--mtu", "1400", "--no-host"),
    ),
    Sample(
        "subnet",
        "office",
        {"network": "lab", "cidr": "10.7.0.0/24", "gateway": "10.7.0.1"},
        {"network": "lab", "cidr": "10.8.0.0/24"},
        "cidr",
        {"gateway": None},
        "none",
        ("--network", "lab", "--cidr", "10.7.0.0/24", "--gateway", "10.7.0.1"),
        ("--no-gateway",),
    ),
    Sample(
        "security-group",
        "web",
        {"rules": [HTTP]},
        {},
        "",
        {"egress": "drop", "rules": []},
        "none",
        ("--rule", "name=http direction=ingress protocol=tcp ports=80,443-445"),
        ("--egress", "drop", "--no-rule"),
    ),
    Sample(
        "address-set",
        "offices",
        {"addresses": ["10.20.0.0/16", "fd00:20::/32"]},
        {},
        "",
        {"addresses": ["10.20.0.0/15"]},
        "none",
        ("--address", "10.20.0.0/16,fd00:20::/32"),
        ("--address", "10.20.0.0/15"),
    ),
    Sample(
        "plug-bridge",
        "xapi-blue",
        {"network": "tenant"},
        {"network": "prod"},
        "network",
        {"network": "prod"},
        "none",
        ("--network", "tenant"),
        ("--network", "prod"),
    ),
    Sample(
        "flow-collector",
        "flows",
        {"protocol": "ipfix", "to": "10.0.0.9:4739", "sample": 64, "of": ["network:tenant"]},
        {"protocol": "ipfix", "to": "10.0.0.10:4739", "sample": 64, "of": ["network:tenant"]},
        "to",
        {"sample": None},
        "none",
        ("--protocol", "ipfix", "--to", "10.0.0.9:4739", "--sample", "64", "--of", "network:tenant"),
        ("--no-sample",),
    ),
    Sample(
        "mirror",
        "ids",
        {"from": ["network:tenant"], "to": "erspan 10.0.0.9 id 7", "filter": "tcp port 443"},
        {"from": ["network:tenant"], "to": "gre 10.0.0.9 key 7"},
        "to",
        {"filter": None, "policy": "after"},
        "none",
        ("--from", "network:tenant", "--to", "erspan 10.0.0.9 id 7", "--filter", "tcp port 443"),
        ("--no-filter", "--policy", "after"),
    ),
    Sample(
        "qos-class",
        "silver",
        {"from_vm": "100mbit", "to_vm": "819.2kbit", "packets": "20kpps"},
        {"from_vm": "10mbit"},
        "from_vm",
        {"from_vm": "50mbit", "packets": None},
        "flows",
        ("--from-vm", "100mbit", "--to-vm", "100kib/s", "--packets", "20kpps"),
        ("--from-vm", "50mbit", "--no-packets"),
    ),
    Sample("vm", "app", {"host": "xen1", "labels": {"app": "shop", "env": "prod"}}, {"host": "xen2"}, "host", {"host": None, "labels": {"app": "bank"}}, "none", ("--host", "xen1", "--label", "app=shop,env=prod"), ("--no-host", "--label", "app=bank")),
    Sample(
        "vif",
        "app/0",
        {"network": "tenant", "mac": "0a:00:00:00:07:01", "addresses": ["10.7.0.9", "fd00::9"]},
        {"network": "prod"},
        "network",
        {"addresses": [], "locking_mode": "unlocked"},
        "none",
        ("--network", "tenant", "--mac", "0a:00:00:00:07:01", "--address", "10.7.0.9", "--address", "fd00::9"),
        ("--no-address", "--locking-mode", "unlocked"),
    ),
    Sample(
        "expectation",
        "apart",
        {"from": "tenant", "to": "prod", "expect": "unreachable", "protocol": "tcp", "port": 22},
        {"from": "tenant", "to": "lab", "expect": "unreachable"},
        "to",
        {"protocol": None, "port": None, "expect": "reachable"},
        "none",
        ("--from", "tenant", "--to", "prod", "--expect", "unreachable", "--protocol", "tcp", "--port", "22"),
        ("--no-protocol", "--no-port", "--expect", "reachable"),
    ),
)  # fmt: skip
