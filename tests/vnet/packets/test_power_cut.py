"""Everything loses power, database included: hosts come back by their own copies of the pool, and the database later costs no frame."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.converged import flows_of, wait_converged
from tests.vnet.faults import How, Part, ProcessFault
from tests.vnet.flowing import go_on, wait_sent
from tests.vnet.packets.pools import HOSTS, NETWORKS
from vnet.agent.copy_keeper import MARK
from vnet.agent.local_copy import NAME
from vnet.api.errors import Unreachable
from vnet.client import Client
from vnet.client.local import call_agent
from vnet.lab import Driver, Lab
from vnet.lab.streams import RunningStream
from vnet.objects import Pool, PoolState, Vif, Vm

pytestmark = pytest.mark.usefixtures("netns")

A, B, C = HOSTS
KINDS = ("vx", "vlan")
PLACES = {"near": A, "beside": A, "far": B}
DATABASE = (ProcessFault(Part.CONTROLLER, How.KILLED), ProcessFault(Part.DATABASE, How.KILLED))


def pool() -> PoolState:
    """Two VIFs on one host and one on another, on a tunnel network and on a VLAN network."""
    vifs = [
        Vif(f"{end}-{kind}/0", kind, f"0a:00:00:00:0{k}:0{n}", vm=f"{end}-{kind}", addresses=(f"10.{k}.0.{n}",))
        for k, kind in enumerate(KINDS, 1) for n, end in enumerate(PLACES, 1)
    ]  # fmt: skip
    vms = {f"{end}-{kind}": Vm(f"{end}-{kind}", host) for end, host in PLACES.items() for kind in KINDS}
    networks = {kind: NETWORKS[kind] for kind in KINDS}
    return PoolState(Pool("mine", underlay_mtu=1600), HOSTS, networks, {}, vms, {vif.id: vif for vif in vifs})


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab.up(pool(), name=new_name(), driver=Driver.NETNS, daemons=True) as running:
        running.start_all()
        running.wait_ready()
        running.daemons.settle()
        for host in HOSTS:
            wait_until(lambda host=host: copied(running, host), "the copy is whole")  # type: ignore[misc]
        yield running


def directory(lab: Lab, host: str) -> Path:
    return lab.spec.host_dir(host) / "state"


def copied(lab: Lab, host: str) -> bool:
    """Whether a host's copy has all that its agent holds."""
    return (directory(lab, host) / NAME).exists() and not (directory(lab, host) / MARK).exists()


def status(lab: Lab, host: str) -> dict[str, object]:
    with contextlib.suppress(Unreachable):
        return call_agent("status", {}, str(lab.daemons.agent_socket(host)))  # type: ignore[no-any-return]
    return {"complete": False, "copy": None, "pool": False}


def flows(lab: Lab) -> dict[str, object]:
    return {host: flows_of(lab, host) for host in HOSTS}


def cut_power(lab: Lab) -> None:
    for fault in DATABASE:
        fault.break_(lab)
    for host in HOSTS:
        lab.crash_host(host)


def wait_alone(lab: Lab, host: str) -> None:
    """Return once a host has programmed itself without a database."""
    wait_until(lambda: bool(status(lab, host)["copy"]) and bool(status(lab, host)["complete"]), f"{host} uses its copy")


@contextlib.contextmanager
def nothing_lost(lab: Lab) -> Iterator[None]:
    """Streams within a host and between hosts, both ways, on each network, lose no frame meanwhile."""
    pairs = [
        (f"{source}-{kind}/0", f"{to}-{kind}/0")
        for kind in KINDS for source, to in (("near", "far"), ("far", "near"), ("near", "beside"))
    ]  # fmt: skip
    with contextlib.ExitStack() as stack:
        running: dict[str, tuple[RunningStream, str]] = {}
        for source, to in pairs:
            running[f"{source} to {to}"] = stack.enter_context(lab.stream(source, to)), to
        go_on(running)
        yield
        wait_sent(running, go_on(running))
    for path, (stream, to) in running.items():
        assert (stream.report.at(to).lost, stream.report.at(to).duplicated) == (0, 0), path


def test_hosts_come_back_without_a_database(lab: Lab) -> None:
    before = flows(lab)
    cut_power(lab)
    for host in HOSTS:
        lab.boot_host(host)
    for host in HOSTS:
        wait_alone(lab, host)
        wait_until(lambda host=host: flows_of(lab, host) == before[host], "flows are as they were")  # type: ignore[misc]
    with nothing_lost(lab):
        lab.daemons.start_controller()
        with Client(f"unix:{lab.daemons.controller_socket}") as asked:
            wait_until(lambda: asked.status().live_hosts == len(HOSTS), "all hosts report")
            assert asked.status().problems == []
        lab.daemons.settle()
    for host in HOSTS:
        assert status(lab, host)["copy"] is None
    assert flows(lab) == before
    wait_converged(lab)
    assert "runs on its own copy of pool" in lab.daemons.log(A).read_text()
