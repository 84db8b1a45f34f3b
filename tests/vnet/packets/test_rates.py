"""Rates of VIFs in a running pool: a change costs no frame, and each move finds its meters at the destination."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.flowing import go_on, wait_sent
from tests.vnet.packets.pools import HOSTS, NETWORKS
from vnet import api
from vnet.client import Client
from vnet.compile.hello import OF_HELLO
from vnet.lab import Driver, Lab
from vnet.lab.streams import LEAST_PERIOD
from vnet.objects import Owner, Pool, PoolState, QosClass, Vif, Vm

A, B, C = HOSTS


@pytest.fixture(scope="module", params=list(Driver), ids=lambda driver: driver.value)
def lab(netns: None, request: pytest.FixtureRequest) -> Iterator[Lab]:
    vifs = [
        Vif("limited/0", "vx", "0a:00:00:00:00:01", "limited", host=A, addresses=("10.1.0.1",), owner=Owner.TOOLSTACK, qos="fast"),
        Vif("other/0", "vx", "0a:00:00:00:00:02", "other", host=C, addresses=("10.1.0.2",)),
    ]  # fmt: skip
    state = PoolState(
        Pool("rates", underlay_mtu=1600), HOSTS, {"vx": NETWORKS["vx"]}, {},
        {"limited": Vm("limited", A), "other": Vm("other", C)}, {vif.id: vif for vif in vifs},
        qos={"fast": QosClass("fast", from_vm=10**8, to_vm=10**8, owner=Owner.TOOLSTACK)},
    )  # fmt: skip
    with Lab.up(state, name=new_name(), driver=request.param, daemons=True) as running:
        running.start_all()
        running.wait_ready()
        yield running


def rates(lab: Lab, host: str) -> list[int]:
    """The rates of a host's meters for VIFs, in kbit/s."""
    text = lab.ovs(host).ofctl("dump-meters", "br-int")
    found = re.findall(r"meter=(\d+) .*?rate=(\d+)", text, re.DOTALL)
    return sorted(int(rate) for number, rate in found if int(number) >> 16 != OF_HELLO >> 16)


def test_a_rate_that_changes_and_a_class_that_comes_and_goes_cost_no_frame(lab: Lab) -> None:
    both = {("limited/0", "other/0"), ("other/0", "limited/0")}
    with Client(f"unix:{lab.daemons.controller_socket}") as client, ExitStack() as stack:
        streams = {path: (stack.enter_context(lab.stream(*path)), path[1]) for path in both}
        go_on(streams)
        for rate in (*(f"{mbit}mbit" for mbit in range(90, 100)), "100mbit"):
            client.change_qos_class("fast", api.QosClassChange(from_vm=rate, to_vm=rate))
        for name in (None, "fast", None, "fast"):
            client.change_vif("limited/0", api.VifChange(qos=name))
        sent = go_on(streams)
        wait_sent(streams, sent)
    for stream, to in streams.values():
        got = stream.report.at(to)
        assert (got.lost, got.duplicated) == (0, 0)
    wait_until(lambda: rates(lab, A) == [100_000, 100_000], "the last rate")


def test_a_vif_that_floods_is_told_of_and_harms_itself_only(lab: Lab) -> None:
    """It sends ten times the broadcast frames that it may. Others' frames, and its own to one receiver, all arrive."""
    allowed = 5 if LEAST_PERIOD in os.environ else 100
    told = f"sends more than the {allowed} broadcast frames a second of QoS class fast"

    def is_told() -> bool:
        return any(told in problem.text for problem in client.status().problems)

    with Client(f"unix:{lab.daemons.controller_socket}") as client, ExitStack() as stack:
        client.change_qos_class("fast", api.QosClassChange(broadcast=f"{allowed}pps"))
        both = (("limited/0", "other/0"), ("other/0", "limited/0"))
        streams = {path: (stack.enter_context(lab.stream(*path)), path[1]) for path in both}
        header = Ether(src=lab.vif("limited").mac, dst="ff:ff:ff:ff:ff:ff")
        everybody = header / IP(src="10.1.0.1", dst="255.255.255.255") / UDP(sport=5000, dport=5000)
        flood = stack.enter_context(lab.stream("limited", packet=everybody))
        wait_until(is_told, "the flood is told of")
        wait_sent(streams, go_on(streams))
        client.change_qos_class("fast", api.QosClassChange(broadcast=None))
        wait_until(lambda: not is_told(), "nothing is limited any more")
    for stream, to in streams.values():
        assert (stream.report.at(to).lost, stream.report.at(to).duplicated) == (0, 0)
    got = flood.report.at("other/0")
    assert got.frames > allowed / 2
    assert got.lost > 50


def test_the_meters_move_with_the_vif(lab: Lab) -> None:
    for host, left in ((B, A), (A, B)):
        lab.migrate("limited", host)
        assert rates(lab, host) == [100_000, 100_000]
        wait_until(lambda left=left: not rates(lab, left), "no meters where it was")  # type: ignore[misc]
