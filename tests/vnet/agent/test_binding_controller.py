"""When an agent decides about a VIF, from what it knows so far of the pool."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from ovsctl.ovsdb import Client
from tests.vnet.agent.pool import TENANT, vif
from vnet.agent.binding_controller import Bindings
from vnet.agent.local_ports import LocalPort
from vnet.agent.pool_replica import PoolFold
from vnet.compile import Compiler
from vnet.objects import Host


def test_a_vif_is_not_claimed_before_its_networks_bindings_are_known() -> None:
    """Else a host that is new to a network takes each VIF that is plugged on it from the host that runs it."""
    compiler = Compiler("xen2")
    pool = PoolFold("xen2", compiler)
    spawned: list[Coroutine[Any, Any, None]] = []
    client = Client(["unix:/nonexistent"], "Vnet")
    bindings = Bindings(pool, client, spawned.append, lambda: None, lambda *_: None, lambda *_: None, lambda: 0)
    compiler.set_host(Host("xen2", "10.99.0.2"))
    compiler.set_port("vm1/0", 1)
    bindings.ports["vm1/0"] = LocalPort("p1", "vm1/0", 1, None, None, None)
    compiler.set_vif(vif(1))
    compiler.set_network(TENANT)  # the row is here, the pool's answer about the bindings is not

    bindings.touched.add("vm1/0")
    bindings.decide_touched()
    assert (bindings.incomplete, pool.overlay, spawned) == ({"vm1/0"}, {}, [])

    pool.asked_networks = frozenset({"tenant"})
    bindings.look_again()
    bindings.decide_touched()
    bindings.send_decided()
    assert pool.overlay["vm1/0"].host == "xen2"
    (claim,) = spawned
    claim.close()
