"""When an agent decides about a VIF, from what it knows so far of the pool."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from ovsctl.ovsdb import Client
from tests.vnet.agent.pool import TENANT, vif
from vnet.agent.binding_controller import Bindings
from vnet.agent.local_ports import LocalPort, LocalPorts
from vnet.agent.pool_replica import ConditionNames, PoolReplica
from vnet.agent.reconciler import Revisions
from vnet.agent.status_writer import StatusWriter
from vnet.compile import Compiler
from vnet.objects import AgentStatus, Host


class Shell:
    """A loop that runs nothing, and keeps the jobs."""

    def __init__(self) -> None:
        self.jobs: list[Coroutine[Any, Any, None]] = []

    def spawn(self, job: Coroutine[Any, Any, None]) -> object:
        self.jobs.append(job)
        return None

    def wake(self) -> None:
        pass

    async def programmed(self) -> None:
        pass

    def arrived(self, vif: str, *, announced: bool) -> None:
        pass


def test_a_vif_is_not_claimed_before_its_networks_bindings_are_known() -> None:
    """Else a host that is new to a network takes each VIF that is plugged on it from the host that runs it."""
    pool, shell, client = PoolReplica(Compiler("xen2"), lambda _: None), Shell(), Client(["unix:/nonexistent"], "Vnet")
    status = StatusWriter(pool, client, Revisions(), AgentStatus("xen2"), dict, lambda: True, lambda: 0)
    bindings = Bindings(pool, client, status, shell, lambda: 0)
    pool.compiler.inputs.set_host(Host("xen2", "10.99.0.2"))
    bindings.see_ports(LocalPorts.of([LocalPort("p1", "vm1/0", 1, None, None, None)]))
    pool.compiler.inputs.set_vif(vif(1))
    pool.compiler.inputs.set_network(TENANT)  # the row is here, the pool's answer about the bindings is not

    bindings.decide({("tenant", "vm1/0")})
    bindings.send()
    assert (bindings.questions, pool.overlay, shell.jobs) == ({"vm1/0": False}, {}, [])

    pool.named = ConditionNames(networks=frozenset({"tenant"}))
    bindings.see_answers()
    bindings.decide({("tenant", "vm1/0")})
    bindings.send()
    assert pool.overlay["vm1/0"].host == "xen2"
    (claim,) = shell.jobs
    claim.close()
