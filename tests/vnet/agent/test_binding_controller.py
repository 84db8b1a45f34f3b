"""When an agent decides about a VIF, from what it knows so far of the pool."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, cast

import pytest

from ovsctl.ovsdb import Change, OvsdbClient, Row
from tests.vnet.agent.pool import TENANT, vif
from vnet.agent import binding_controller
from vnet.agent.binding_controller import Bindings
from vnet.agent.host_claim import HostClaim
from vnet.agent.local_ports import LocalPort, LocalPorts
from vnet.agent.measures import Measures
from vnet.agent.pool_identity import PoolIdentity
from vnet.agent.pool_replica import ConditionNames, PoolReplica
from vnet.agent.reconciler import Revisions
from vnet.agent.status_writer import StatusWriter
from vnet.compile import Compiler
from vnet.db.rows import to_columns
from vnet.objects import AgentStatus, Binding, BindingState, Host, Vif
from vnet.objects.binding import published


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

    def took_up(self, vif: Vif, addresses: tuple[str, ...]) -> None:
        pass

    def refusal(self, vif: str) -> str:
        return ""


def test_a_vif_is_not_claimed_before_its_networks_bindings_are_known() -> None:
    """Else a host that is new to a network takes each VIF that is plugged on it from the host that runs it."""
    pool, shell, client = (
        PoolReplica(Compiler("xen2"), lambda _: None),
        Shell(),
        OvsdbClient(["unix:/nonexistent"], "Vnet"),
    )
    status = writer(pool, client)
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


def test_a_binding_made_anew_while_its_host_stops_relaying_is_decided_on_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A VIF of the same id may have moved away again by then, or may run here; no row changes any more."""
    monkeypatch.setattr(binding_controller, "RELAY_S", 0)
    pool, shell, client = (
        PoolReplica(Compiler("xen1"), lambda _: None),
        Shell(),
        OvsdbClient(["unix:/nonexistent"], "Vnet"),
    )
    status = writer(pool, client)
    bindings = Bindings(pool, client, status, shell, lambda: 0)
    pool.compiler.inputs.set_network(TENANT)
    pool.named = ConditionNames(networks=frozenset({"tenant"}))
    pool.compiler.inputs.set_vif(vif(1, host="xen2"))
    pool.fold([inserted(binding("xen1", epoch=1)), inserted(binding("xen2", epoch=2))])

    bindings.decide({("tenant", "vm1/0")})
    (stop,) = shell.jobs
    pool.fold([deleted(binding("xen1", epoch=1)), inserted(binding("xen1", epoch=1), "made anew")])
    pool.touched.clear()
    asyncio.run(stop)
    assert not status.statements.pending  # the row that was to go is not there any more

    assert pool.touched == {("tenant", "vm1/0")}
    bindings.decide(pool.touched)
    asyncio.run(shell.jobs[1])
    assert set(status.statements.pending) == {("release", "vm1/0")}


def test_a_vif_that_comes_back_while_its_host_relays_is_held_with_a_new_binding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the row that was to go has changed meanwhile, so that it was not released."""
    monkeypatch.setattr(binding_controller, "RELAY_S", 0)
    monkeypatch.setattr(binding_controller, "CACHES_S", 0)
    client, shell = OvsdbClient(["unix:/nonexistent"], "Vnet"), Shell()
    pool = PoolReplica(Compiler("xen1"), lambda _: None)
    status = writer(pool, client)
    bindings = Bindings(pool, client, status, shell, lambda: 0)
    pool.compiler.inputs.set_network(TENANT)
    pool.named = ConditionNames(networks=frozenset({"tenant"}))
    pool.compiler.inputs.set_vif(vif(1, host="xen2", epoch=2))
    former = binding("xen1", epoch=1)
    pool.fold([inserted(former), inserted(binding("xen2", epoch=2))])
    bindings.decide({("tenant", "vm1/0")})
    (stop,) = shell.jobs

    pool.compiler.inputs.set_vif(vif(1, host="xen2", incoming="xen1", epoch=2))
    bindings.see_ports(LocalPorts.of([LocalPort("p1", "vm1/0", 1, None, None, None)]))
    changed = replace(former, moved=True)
    pool.fold([deleted(former), inserted(changed)])
    asyncio.run(stop)
    bindings.decide({("tenant", "vm1/0")})
    asyncio.run(shell.jobs[1])
    assert set(status.statements.pending) == {("release", "vm1/0")}
    pool.fold([deleted(changed)])
    bindings.decide({("tenant", "vm1/0")})
    held = pool.overlay["vm1/0"]
    assert (held.state, held.epoch) == (BindingState.HELD, 3)
    for job in shell.jobs[2:]:
        job.close()


def writer(pool: PoolReplica, client: OvsdbClient) -> StatusWriter:
    status = AgentStatus(pool.me)
    claim, identity = HostClaim(client, status, lambda: 0), PoolIdentity(client, status, lambda: 0)
    return StatusWriter(
        pool,
        client,
        Revisions(),
        claim,
        identity,
        dict,
        dict,
        str,
        lambda: True,
        lambda _: "",
        lambda: 0,
        Measures(lambda: 0.0),
    )


def binding(host: str, epoch: int) -> Binding:
    return Binding(vif="vm1/0", host=host, epoch=epoch, **published(vif(1)))


class FakeRow(dict[str, Any]):
    """A row of table Binding, as ovsctl has it."""

    def __init__(self, value: Binding, uuid: str) -> None:
        super().__init__(to_columns(value))
        self.uuid = uuid


def inserted(value: Binding, uuid: str = "") -> Change:
    return Change("Binding", uuid or value.host, None, cast(Row, FakeRow(value, uuid or value.host)))


def deleted(value: Binding) -> Change:
    return Change("Binding", value.host, cast(Row, FakeRow(value, value.host)), None)
