"""Bonded uplinks: what a host's switch makes of each mode, and that frames get through without LACP at the other end."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from dataclasses import replace

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether

from tests.labs import new_name
from tests.polling import wait_until
from tests.vnet.flowing import go_on, wait_sent
from vnet.client import Client, Unit
from vnet.lab import Driver, Lab
from vnet.objects import (
    BondHash,
    BondMode,
    Host,
    LacpTime,
    Network,
    NetworkType,
    Pool,
    PoolState,
    Uplink,
    Vif,
    Vm,
)

pytestmark = pytest.mark.usefixtures("netns")
NICS = ("eth1", "eth2")
VIFS = {
    f"vm{n}/0": Vif(f"vm{n}/0", "vlan", f"0a:00:00:00:00:0{n}", vm=f"vm{n}", host=f"xen{n}", addresses=(f"10.1.0.{n}",))
    for n in (1, 2)
}


def bonded(uplink: Uplink) -> PoolState:
    """Two hosts with this bond, a VLAN on it, and a VM on each."""
    hosts = {name: Host(name, f"10.99.0.{n}", (uplink,)) for n, name in ((1, "xen1"), (2, "xen2"))}
    network = Network("vlan", NetworkType.VLAN, 1, 1500, key=100, tag=120, uplink="bond0")
    vms = {f"vm{n}": Vm(f"vm{n}", f"xen{n}") for n in (1, 2)}
    return PoolState(Pool("bonds"), hosts, {"vlan": network}, {}, vms, VIFS)


def reaches(lab: Lab) -> None:
    for source, to in (("vm1/0", "vm2/0"), ("vm2/0", "vm1/0")):
        header = Ether(src=VIFS[source].mac, dst=VIFS[to].mac) / IP(src=VIFS[source].addresses[0], dst="10.1.0.9")
        assert lab.send(source, header / UDP() / (b"x" * 20)).to == [to]


@pytest.mark.parametrize(
    ("bond_hash", "time", "mode"),
    [
        (BondHash.TCPUDP_PORTS, LacpTime.FAST, "balance-tcp"),
        (BondHash.SOURCE_MAC, LacpTime.SLOW, "balance-slb"),
    ],
)
def test_lacp_negotiates_spreads_and_falls_back(bond_hash: BondHash, time: LacpTime, mode: str) -> None:
    uplink = Uplink("bond0", NICS, BondMode.LACP, time, bond_hash)
    with Lab.up(bonded(uplink), name=new_name(), driver=Driver.NETNS, daemons=True) as lab:
        lab.start_all()
        for host in ("xen1", "xen2"):
            show = lab.ovs(host).appctl
            wait_until(lambda show=show: "lacp_status: negotiated" in show("bond/show", "bond-bond0"), "negotiated")
            shown = show("bond/show", "bond-bond0")
            assert f"bond_mode: {mode}" in shown
            assert "lacp_fallback_ab: true" in shown
            assert f"lacp_time: {time.value}" in show("lacp/show", "bond-bond0")
        reaches(lab)


def test_lacp_without_a_partner_works_as_active_backup() -> None:
    pool = bonded(Uplink("bond0", NICS, BondMode.ACTIVE_BACKUP))
    with Lab.up(pool, name=new_name(), driver=Driver.NETNS, daemons=True) as lab:  # so its switches speak no LACP
        lab.start_all()
        reaches(lab)
        with Client(f"unix:{lab.daemons.controller_socket}") as client:
            document = client.export().replace("mode: active-backup", "mode: lacp")
            assert client.apply(document.encode(), "lacp").waiting == []
        for host in pool.hosts:
            show = lab.ovs(host).appctl
            wait_until(lambda show=show: "lacp_status: configured" in show("bond/show", "bond-bond0"), "no partner")
            wait_until(lambda show=show: "active member" in show("bond/show", "bond-bond0"), "one member is in use")
        reaches(lab)


def test_a_vif_that_left_is_heard_where_it_was_through_a_bond_balanced_by_mac() -> None:
    """Open vSwitch's balance-slb drops what comes in from a MAC that it has as one of its own, till that is forgotten."""
    pool = bonded(Uplink("bond0", NICS, BondMode.BALANCE_SLB))
    stays = Vif("stays/0", "vlan", "0a:00:00:00:00:09", vm="stays", host="xen1", addresses=("10.1.0.9",))
    pool = replace(pool, vms=pool.vms | {"stays": Vm("stays", "xen1")}, vifs={**pool.vifs, "stays/0": stays})
    with Lab.up(pool, name=new_name(), driver=Driver.NETNS, daemons=True) as lab:
        lab.start_all()
        header = Ether(src=VIFS["vm1/0"].mac, dst=stays.mac) / IP(src=VIFS["vm1/0"].addresses[0], dst="10.1.0.9")
        frame = header / UDP() / (b"x" * 20)
        for to in ("xen2", "xen1"):
            lab.migrate("vm1", to)
            wait_until(lambda: "stays/0" in lab.send("vm1/0", frame).to, f"vm1 on {to} is heard")


@pytest.mark.parametrize("how", ["heard", "frozen", "cut off"])
def test_a_vif_that_leaves_a_bond_balanced_by_mac_loses_at_most_one_frame(how: str) -> None:
    """A VM moves under streams to and from one that stays on its old host, whose agent hears nothing of it from then on. It is heard
    there all the while, and hears."""
    pool = bonded(Uplink("bond0", NICS, BondMode.BALANCE_SLB))
    stays = Vif("stays/0", "vlan", "0a:00:00:00:00:09", vm="stays", host="xen1", addresses=("10.1.0.9",))
    pool = replace(pool, vms=pool.vms | {"stays": Vm("stays", "xen1")}, vifs={**pool.vifs, "stays/0": stays})
    unit = Unit.of_vm("vm1")
    request = Ether(src=VIFS["vm1/0"].mac, dst="ff:ff:ff:ff:ff:ff") / ARP(
        op="who-has", hwsrc=VIFS["vm1/0"].mac, psrc="10.1.0.1", pdst="10.1.0.9"
    )
    with Lab.up(pool, name=new_name(), driver=Driver.NETNS, daemons=True) as lab, ExitStack() as stack:
        lab.start_all()
        lab.daemons.settle()
        client = stack.enter_context(Client(f"unix:{lab.daemons.controller_socket}"))
        running = {to: (stack.enter_context(lab.stream(source, to)), to)
                   for source, to in (("vm1/0", "stays/0"), ("stays/0", "vm1/0"))}  # fmt: skip
        go_on(running)
        client.prepare(unit, "xen2")
        lab.plug("vm1", "xen2")
        wait_until(lambda: client.migration(unit).phase == "prepared", "prepared")
        if how == "frozen":
            lab.daemons.signal("xen1", signal.SIGSTOP)
        elif how == "cut off":
            lab.cut("xen1", "database")
        lab.run("vm1", "xen2", announce=True)
        wait_until(lambda: client.migration(unit).phase == "active", "active")
        wait_sent(running, go_on(running))
        wait_until(lambda: "stays/0" in lab.send("vm1/0", request).to, "its broadcast is heard")
        if how == "frozen":
            lab.daemons.signal("xen1", signal.SIGCONT)
        elif how == "cut off":
            lab.heal("xen1", "database")
        client.finish(unit)
        lab.unplug("vm1", "xen1")
        wait_sent(running, go_on(running))
    got = running["stays/0"][0].report.at("stays/0")
    assert got.lost <= 1  # as with one NIC
    assert got.duplicated == 0
    assert running["vm1/0"][0].report.at("vm1/0").duplicated == 0
