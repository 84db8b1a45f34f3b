"""What an agent reads of ports: each of them once, and again when its row or number is another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vnet.agent.local_ports import LocalPort, LocalPorts, PortReader

Rows = dict[str, Mapping[str, Any]]


def interface(name: str, ofport: int | None, **ids: str) -> Mapping[str, Any]:
    return {
        "name": name, "ofport": ofport, "error": None, "mtu": 1500, "mtu_request": None,
        "external_ids": {key.replace("_", "-"): value for key, value in ids.items()},
    }  # fmt: skip


def tables(interfaces: Rows) -> dict[str, Rows]:
    return {
        "Bridge": {"b": {"name": "br-int", "ports": {f"port-{uuid}" for uuid in interfaces} | {"gone"}}},
        "Port": {f"port-{uuid}": {"interfaces": {uuid}} for uuid in interfaces},
        "Interface": interfaces,
    }


def test_only_ports_that_differ_are_read_anew() -> None:
    reader, rows = PortReader(), {f"i{n}": interface(f"p{n}", n, iface_id=f"vm{n}/0") for n in range(3)}
    before = reader.read(tables(rows), "br-int", {"p0": 10})
    assert [(port.name, port.vif, port.ofport) for port in before] == [
        ("p0", "vm0/0", 10), ("p1", "vm1/0", 1), ("p2", "vm2/0", 2),
    ]  # fmt: skip
    rows["i1"] = interface("p1", 1, iface_id="vm9/0")
    after = reader.read(tables(rows), "br-int", {"p0": 10, "p2": 12})
    assert [(port.vif, port.ofport) for port in after] == [("vm0/0", 10), ("vm9/0", 1), ("vm2/0", 12)]
    assert [now is was for was, now in zip(before, after, strict=True)] == [True, False, False]
    del rows["i0"]
    assert [port.name for port in reader.read(tables(rows), "br-int", {}, {"p2"})] == ["p1", "p2"]
    assert [port.ofport for port in reader.read(tables(rows), "br-int", {}, {"p2"})] == [1, None]
    assert reader.read(tables(rows), "another", {}) == []


def test_of_ports_that_name_one_vif_the_first_is_used() -> None:
    def port(name: str, ofport: int | None) -> LocalPort:
        return LocalPort(name, "vm1/0", ofport, None, None, None)

    found = LocalPorts.of([port("a", None), port("b", 7), port("c", 3)])
    assert (found.vifs["vm1/0"].name, found.vifs["vm1/0"].also) == ("c", ("b", "a"))
    assert LocalPorts.of([port("a", 1)]).vifs["vm1/0"] == port("a", 1)
