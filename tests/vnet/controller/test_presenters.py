"""The status of a pool, from a view of it."""

from __future__ import annotations

from dataclasses import replace

import click
import msgspec
import pytest

from tests.vnet.agent.pool import TENANT
from tests.vnet.agent.pool import vif as vif_of
from vnet import api
from vnet.api.errors import Conflict
from vnet.cli.columns import COLUMNS
from vnet.cli.output import table
from vnet.controller.old_agents import check_encryption
from vnet.controller.presenters import Presenter, problems_of_hosts, show_status
from vnet.db.health import HostHealth, StatedNeighbour
from vnet.db.view import PoolView
from vnet.objects import AgentStatus, Binding, Encryption, Host, Pool, PoolState


def test_a_live_agent_of_a_host_that_the_pool_does_not_have_is_named_with_the_host_that_it_may_be() -> None:
    state = PoolState(Pool("lab"), hosts={"kvm3": Host("kvm3", "10.99.0.3")})
    state.agents["kvm-3"] = AgentStatus("kvm-3", started=1, heartbeat=1)
    state.agents["gone"] = AgentStatus("gone", started=1, heartbeat=1)
    found = {
        (reason.code, reason.host): reason.text
        for reason in show_status(PoolView.of(state, ["kvm-3"]), [], "").problems
    }
    assert found.keys() == {("agent-of-no-host", "kvm-3"), ("no-agent", "kvm3")}
    text = found["agent-of-no-host", "kvm-3"]
    assert "host kvm-3, which the pool does not have: is it kvm3?" in text


def test_the_moves_that_are_under_way_are_listed_with_what_they_wait_for() -> None:
    state = PoolState(Pool("lab"), hosts={name: Host(name) for name in ("xen1", "xen2")})
    state.networks[TENANT.name] = TENANT
    for number, incoming in ((0, "xen2"), (1, None)):
        vif = replace(vif_of(number), id=f"web1/{number}", vm="web1", host="xen1", incoming=incoming)
        state.vifs[vif.id] = vif
    bound = Binding("web1/0", "xen1", TENANT.name, state.vifs["web1/0"].mac, epoch=1)
    state.bindings["web1/0", "xen1"] = bound
    state.agents.update({name: AgentStatus(name, started=1, heartbeat=1) for name in state.hosts})
    (move,) = show_status(PoolView.of(state, ["xen1", "xen2"]), [], "").moving
    assert (move.unit, move.migration.source, move.migration.destination) == ("VM web1", "xen1", "xen2")
    assert move.migration.phase == "preparing"
    assert move.migration.waiting == ["host xen2 has no tunnel address, which network tenant needs"]


def test_the_problems_of_hosts_are_those_of_live_ones_without_single_vifs() -> None:
    state = PoolState(Pool("lab"), hosts={name: Host(name) for name in ("xen1", "xen2", "xen3")})
    problems = {"Port eth1": "is not ours", "vif web1/0": "no port"}
    state.agents.update({name: AgentStatus(name, started=1, heartbeat=1, problems=problems) for name in state.hosts})
    found = problems_of_hosts(PoolView.of(state, ["xen1", "xen2"]), ["xen2", "xen3"])
    assert [reason.text for reason in found] == ["host xen2: Port eth1: is not ours"]


def test_a_host_is_shown_with_the_switch_ports_that_its_nics_are_at_while_it_is_alive() -> None:
    state = PoolState(Pool("lab"), hosts={name: Host(name) for name in ("xen1", "xen2")})
    at = StatedNeighbour("trunk0", "eth1", "00:01:02:03:04:05", "Gi1/0/3", 120, system="sw1", vlan=99)
    said = HostHealth(looks=True, neighbours=(at,)).encode()
    state.agents.update({name: AgentStatus(name, heartbeat=1, health=said) for name in state.hosts})
    presenter = Presenter(PoolView.of(state, ["xen1"]))
    alive, silent = (msgspec.convert(presenter.show(host), api.Host) for host in state.hosts.values())
    assert [(it.host, it.nic, it.place, it.vlan) for it in alive.neighbours] == [("xen1", "eth1", "sw1 Gi1/0/3", 99)]
    assert silent.neighbours == []
    heading, first, second = map(click.unstyle, table([alive, silent], COLUMNS["host"]))
    assert [line[heading.index("NEIGHBOURS") :] for line in (first, second)] == ["eth1 at sw1 Gi1/0/3", "-"]


def test_no_network_becomes_encrypted_beside_an_agent_that_would_send_in_clear_and_one_that_is_there_is_told() -> None:
    state = PoolState(Pool("lab"), hosts={name: Host(name) for name in ("xen1", "xen2")})
    clear, encrypted = TENANT, replace(TENANT, encryption=Encryption.REQUIRED)
    state.networks[clear.name] = clear
    state.agents.update(
        {name: AgentStatus(name, heartbeat=1, switch=switch) for name, switch in (("xen1", "s"), ("xen2", ""))}
    )
    with pytest.raises(Conflict, match="upgrade host xen2"):
        check_encryption(PoolView.of(state, ["xen1", "xen2"]), [encrypted])
    check_encryption(PoolView.of(state, ["xen1", "xen2"]), [clear])
    check_encryption(PoolView.of(state, ["xen1"]), [encrypted])  # nobody's agent runs on the other
    assert "agent-too-old" not in {r.code for r in show_status(PoolView.of(state, ["xen1", "xen2"]), [], "").problems}
    state.networks[clear.name] = encrypted
    check_encryption(PoolView.of(state, ["xen1", "xen2"]), [encrypted])  # it is by now
    told = [r for r in show_status(PoolView.of(state, ["xen1", "xen2"]), [], "").problems if r.code == "agent-too-old"]
    assert [reason.host for reason in told] == ["xen2"]
