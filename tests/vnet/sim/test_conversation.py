"""The ends of a conversation by name, and the verdict where an end has no port."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.vnet.sim.pools import two_hosts
from vnet.sim import AmbiguousVif, NotPlugged, SimPool, UnknownName
from vnet.sim.bindings import bound
from vnet.sim.conversation import ends_named


@pytest.mark.parametrize(
    ("source", "target", "ends"),
    [
        ("web1/0", "db1/1", ["web1/0", "db1/1"]),
        ("web1", "web2", ["web1/0", "web2/0"]),  # both have a VIF on tenant
        ("free1", "free2/1", ["free1/1", "free2/1"]),
        ("web1", "outside", ["web1/1", None]),  # one of its networks has an uplink
        ("outside", "web1/1", [None, "web1/1"]),
        ("off", "web2", ["off/0", "web2/0"]),
    ],
)
def test_ends(source: str, target: str, ends: list[str | None]) -> None:
    assert [vif and vif.id for vif in ends_named(two_hosts(), source, target)] == ends


@pytest.mark.parametrize(
    ("source", "target", "choices"),
    [
        ("web1", "db1", r"VM web1 .* web1/0 \(tenant\), web1/1 \(prod\), web1/2 \(legacy\)"),
        ("off", "free1", r"VM free1 .* free1/0 \(gnv\), free1/1 \(flat\)"),
        ("free2/1", "web1", r"VM web1 "),
        ("web1", "web1", r"VM web1 "),
    ],
)
def test_ambiguous_ends(source: str, target: str, choices: str) -> None:
    with pytest.raises(AmbiguousVif, match=choices):
        ends_named(two_hosts(), source, target)


def test_unknown_end() -> None:
    with pytest.raises(UnknownName, match="did you mean 'web1/0'"):
        ends_named(two_hosts(), "wbe1/0", "db1")


def test_running_pool_has_ports_only_where_bindings_are() -> None:
    state = bound(two_hosts().configured)
    bindings = {key: binding for key, binding in state.bindings.items() if key[0] != "db1/0"}
    running = SimPool.of(replace(state, bindings=bindings), claim=False)
    trace = running.connect("web1/0", "db1/0")
    assert not trace.reached
    assert trace.legs[-1].verdict.startswith("no host has a port of db1/0; ")
    assert "no host has a port of db1/0" in repr(trace)
    with pytest.raises(NotPlugged, match="db1/0 is not plugged"):
        running.connect("db1/0", "web1/0")
    assert running.connect("web1/0", "web2/0").reached
    running.update(running.state)
    assert not running.connect("web1/0", "db1/0").reached
