"""Each process of a pool dies, or stands still, under streams: what that costs, and that all is afterwards as it was before."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.labs import new_name
from tests.vnet.converged import flows_of, wait_converged
from tests.vnet.faults import How, Part, ProcessFault
from tests.vnet.flowing import go_on, wait_sent
from tests.vnet.packets.pools import HOSTS, NETWORKS
from vnet.lab import Driver, Lab
from vnet.lab.streams import RunningStream
from vnet.objects import Pool, PoolState, Vif, Vm

KINDS = ("vx", "vlan")
A, B, C = HOSTS
PATHS = [(A, B), (B, C), (C, A)]
STOPPED_S = 0.5


def pool() -> PoolState:
    """A VIF on each host, on a tunnel network and on a VLAN network."""
    vifs = [
        Vif(f"{kind}-{host}/0", kind, f"0a:00:00:00:0{k}:0{h}", vm=f"{kind}-{host}", host=host, addresses=(f"10.{k}.0.{h}",))
        for k, kind in enumerate(KINDS, 1) for h, host in enumerate(HOSTS, 1)
    ]  # fmt: skip
    vms = {f"{kind}-{host}": Vm(f"{kind}-{host}", host) for kind in KINDS for host in HOSTS}
    networks = {kind: NETWORKS[kind] for kind in KINDS}
    return PoolState(Pool("restarts", underlay_mtu=1600), HOSTS, networks, {}, vms, {vif.id: vif for vif in vifs})


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    with Lab.up(pool(), name=new_name(), driver=Driver.NETNS, daemons=True) as running:
        running.start_all()
        yield running


@contextlib.contextmanager
def streams(lab: Lab, period_ms: int = 1) -> Iterator[dict[tuple[str, str], tuple[RunningStream, str]]]:
    """Streams between hosts on both networks, under way; with who receives."""
    with contextlib.ExitStack() as stack:
        paths = [(f"{kind}-{source}/0", f"{kind}-{to}/0") for kind in KINDS for source, to in PATHS]
        running = {
            (source, to): (stack.enter_context(lab.stream(source, to, period_ms=period_ms)), to) for source, to in paths
        }
        go_on(running)
        yield running


FAULTS = [
    *(ProcessFault(Part.AGENT, how, B) for how in How),
    *(ProcessFault(Part.CONTROLLER, how) for how in How),
    *(ProcessFault(Part.DATABASE, how) for how in How),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_what_only_decides_costs_no_packet(lab: Lab, fault: ProcessFault) -> None:
    before = {host: flows_of(lab, host) for host in HOSTS}
    with streams(lab) as running:
        fault.break_(lab)
        time.sleep(STOPPED_S)
        fault.mend(lab)
        lab.daemons.settle()
        wait_sent(running, go_on(running))
    for (source, to), (stream, _) in running.items():
        got = stream.report.at(to)
        assert (got.lost, got.duplicated) == (0, 0), f"{source} to {to}"
    assert {host: flows_of(lab, host) for host in HOSTS} == before
    wait_converged(lab)


def test_an_agent_that_is_started_as_another_host_costs_no_packet(lab: Lab) -> None:
    """The machine of host xen3 gets the name of xen1: its agent stands by, and xen1's goes on."""
    before = {host: flows_of(lab, host) for host in HOSTS}
    with streams(lab, period_ms=4) as running:  # for some ten seconds: an agent stands by till the other one is heard
        lab.daemons.kill(C)
        lab.daemons.start_agent(C, lab.ovs(C), named=A)
        lab.daemons.wait(lambda view: "agent" in view.state.agents[A].problems, "xen1's agent names it")
        wait_sent(running, go_on(running))
        lab.daemons.kill(C)
        lab.daemons.start_agent(C, lab.ovs(C))
        lab.daemons.settle()
        wait_sent(running, go_on(running))
    for (source, to), (stream, _) in running.items():
        got = stream.report.at(to)
        assert (got.lost, got.duplicated) == (0, 0), f"{source} to {to}"
    assert {host: flows_of(lab, host) for host in HOSTS} == before
    assert f"stands by: host {A} is that of" in lab.daemons.log(C).read_text()
    wait_converged(lab)


@pytest.mark.parametrize("how", How, ids=lambda how: how.value)
def test_a_switch_that_restarts_forwards_again_as_before(lab: Lab, how: How) -> None:
    fault = ProcessFault(Part.VSWITCHD, how, B)
    before = {host: flows_of(lab, host) for host in HOSTS}
    with streams(lab) as running:
        fault.break_(lab)
        time.sleep(STOPPED_S)
        fault.mend(lab)
        whole = go_on(running)
        wait_sent(running, whole)
    for (source, to), (stream, _) in running.items():
        got = stream.report.at(to)
        assert got.duplicated == 0, f"{source} to {to}"
        assert all(number < whole[source, to] for number in got.lost_numbers), f"{source} to {to}"
        if B not in f"{source} {to}":  # no concern of theirs
            assert got.lost == 0, f"{source} to {to}"
    wait_converged(lab)
    assert {host: flows_of(lab, host) for host in HOSTS} == before
