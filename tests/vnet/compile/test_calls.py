"""What compiling one VIF costs in calls of functions: features that a VIF does not use cost it next to nothing.

Counts are exact on any machine. A bound is what the work costs, and a tenth more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import pytest

from vnet.compile import Compiler, Switch, ovs_rows
from vnet.objects import Binding, Host, Network, NetworkType, Pool, Vif

NETWORK = Network("net", NetworkType.VXLAN, 1, 1450, key=5001)


def calls_of(work: Callable[[], object]) -> int:
    """How many functions of Python's are called."""
    count = 0

    def note(_: FrameType, event: str, __: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def vif(number: int) -> Vif:
    return Vif(f"vm{number}/0", "net", f"0a:00:00:00:00:{number:02x}", addresses=(f"10.0.0.{number}",))


def running(it: Vif, host: str) -> Binding:
    return Binding(it.id, host, it.network, it.mac, 1, addresses=it.addresses)


@pytest.fixture
def compiler() -> Compiler:
    """A host with three VIFs on a network, which others share."""
    made = Compiler("xen1")
    made.inputs.set_pool(Pool("lab"))
    for number in (1, 2):
        made.inputs.set_host(Host(f"xen{number}", f"10.99.0.{number}"))
    made.inputs.set_device("vnet-vxlan", 1)
    made.inputs.set_network(NETWORK)
    for number in (1, 2, 3):
        plug(made, vif(number), 10 + number)
    made.inputs.set_binding(running(vif(4), "xen2"))
    made.compile()
    return made


def plug(compiler: Compiler, it: Vif, ofport: int) -> None:
    compiler.inputs.set_vif(it)
    compiler.inputs.set_binding(running(it, "xen1"))
    compiler.inputs.set_port(it.id, ofport)


def test_a_plug_here(compiler: Compiler) -> None:
    plug(compiler, vif(9), 19)
    assert calls_of(compiler.compile) <= 850  # some 30 of them look for tiers, and 30 count


def test_a_plug_elsewhere(compiler: Compiler) -> None:
    compiler.inputs.set_binding(running(vif(9), "xen2"))
    assert calls_of(compiler.compile) <= 66


def test_rows_are_the_same_objects_while_nothing_that_they_need_changes(compiler: Compiler) -> None:
    before = ovs_rows(compiler.view, Switch())
    plug(compiler, vif(9), 19)
    assert ovs_rows(compiler.view, Switch()) is before
    compiler.inputs.set_network(Network("other", NetworkType.GENEVE, 2, 1450, key=5001))
    after = {port.name for port in ovs_rows(compiler.view, Switch()).bridges[0].ports}
    assert after - {port.name for port in before.bridges[0].ports} == {"vnet-geneve"}
