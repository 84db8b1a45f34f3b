"""Notices that a guest is paused: which an agent heeds."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import cast

import pytest

from ovsctl.openflow import Match
from ovsctl.openflow.messages import PacketIn, PacketInReason
from tests.vnet.agent.pool import TENANT, vif
from vnet.agent.flow_reconciler import BridgeFlows
from vnet.agent.pause_notices import PauseNotices
from vnet.compile import Compiler
from vnet.objects import Binding, BindingState, Encryption, Host, Network, Pool
from vnet.util.hello_frames import HostHello, hello_frame, pool_mark
from vnet.util.pause_frames import PauseNotice, pause_frames

MOVING = replace(vif(1), host="xen1", incoming="xen2")
TUNNEL = 7
RUNS = Binding(MOVING.id, "xen1", TENANT.name, MOVING.mac, 4)
HELD = Binding(MOVING.id, "xen2", TENANT.name, MOVING.mac, 5, state=BindingState.HELD)
NOTICE = PauseNotice(pool_mark("p"), "xen1", {MOVING.id: 5})


def heeded(
    notice: PauseNotice, *bindings: Binding, source: str = "10.99.0.1", network: Network = TENANT
) -> list[list[str]]:
    """For which VIFs host xen2 opens ports by a notice that comes from an address."""
    compiler, found = Compiler("xen2"), list[list[str]]()
    inputs = compiler.inputs
    inputs.set_pool(Pool("pool", id="p"))
    for number in (1, 2, 3):
        inputs.set_host(Host(f"xen{number}", f"10.99.0.{number}"))
    inputs.set_device("vnet-vxlan", TUNNEL)
    inputs.set_network(network)
    inputs.set_vif(MOVING)
    for binding in bindings:
        inputs.set_binding(binding)
    notices = PauseNotices(compiler.view, cast(BridgeFlows, None), found.append)
    match = Match(in_port=TUNNEL, tun_src=int(IPv4Address(source)))
    for frame in pause_frames(notice):
        assert notices.packet_in(PacketIn(PacketInReason.ACTION, 0, None, match, frame, len(frame)))
    hello = hello_frame(HostHello(notice.pool, notice.host))
    assert not notices.packet_in(PacketIn(PacketInReason.ACTION, 0, None, match, hello, len(hello)))
    return found


def test_a_notice_of_the_host_that_runs_the_guest_is_heeded() -> None:
    assert heeded(NOTICE, RUNS, HELD) == [[MOVING.id]]
    others = {f"other{number}/0": 5 for number in range(20)}
    assert heeded(NOTICE._replace(epochs=others | NOTICE.epochs), RUNS, HELD) == [[MOVING.id]]


@pytest.mark.parametrize(
    ("notice", "bindings", "source"),
    [
        (NOTICE, (RUNS, HELD), "10.99.0.3"),
        (NOTICE._replace(host="xen3"), (RUNS, HELD), "10.99.0.3"),
        (NOTICE._replace(pool=pool_mark("other")), (RUNS, HELD), "10.99.0.1"),
        (NOTICE._replace(epochs={MOVING.id: 3}), (RUNS, HELD), "10.99.0.1"),
        (NOTICE._replace(epochs={"unknown/0": 5}), (RUNS, HELD), "10.99.0.1"),
        (NOTICE, (RUNS, replace(HELD, state=BindingState.RECEIVING)), "10.99.0.1"),
        (NOTICE, (RUNS, replace(HELD, state=BindingState.ACTIVE)), "10.99.0.1"),
        (NOTICE, (RUNS,), "10.99.0.1"),
        (NOTICE, (HELD,), "10.99.0.1"),
        (NOTICE, (RUNS, replace(HELD, host="xen3")), "10.99.0.1"),
    ],
    ids=["another's address", "not its source", "another pool", "an earlier migration", "unknown", "twice", "late", "aborted", "runs nowhere", "goes elsewhere"],
)  # fmt: skip
def test_any_other_notice_opens_nothing(notice: PauseNotice, bindings: tuple[Binding, ...], source: str) -> None:
    assert heeded(notice, *bindings, source=source) == []


def test_on_an_encrypted_network_none_is_heeded_that_came_in_clear() -> None:
    assert heeded(NOTICE, RUNS, HELD, network=replace(TENANT, encryption=Encryption.REQUIRED)) == []
