"""Every change is hitless for whoever it does not concern: streams between other VIFs lose nothing and get nothing twice.

Devices come and go on xen3 only, and the streams of tunnels are between the other two: when a device goes, Open vSwitch 3.1
itself forgets its userspace tunnels' routes and addresses for some milliseconds, on that host.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import pytest

from ovsctl.ovsdb import Delete, Insert, OvsdbClient, Update
from tests.labs import SharedLab, new_name
from tests.vnet.flowing import go_on
from tests.vnet.packets.pools import NETWORKS, every_type
from vnet.db.rows import to_columns
from vnet.lab import Driver, Lab
from vnet.objects import BondMode, Host, Network, NetworkType, PoolState, Uplink, Vif, Vm

WATCHED = ("vlan", "vx", "gre")
BOND = Uplink("trunk0", ("eth1", "eth2", "eth3"), BondMode.ACTIVE_BACKUP)
SPARE = Vif("spare/0", "vx", "0a:00:00:01:00:01", vm="spare", addresses=("10.222.0.1",))


def pool() -> PoolState:
    """A VIF per host on the watched networks, and a spare VM on one of them. xen3's uplink is a bond."""
    whole = every_type(per_host=1)
    networks = {name: NETWORKS[name] for name in WATCHED}
    vifs = {vif.id: vif for vif in whole.vifs.values() if vif.network in networks and not vif.trunk}
    vms = {vif.vm: Vm(vif.vm, vif.host) for vif in vifs.values() if vif.vm}
    hosts = whole.hosts | {"xen3": replace(whole.hosts["xen3"], uplinks=(BOND,))}
    return replace(
        whole, hosts=hosts, networks=networks, vifs=vifs | {SPARE.id: SPARE}, vms=vms | {"spare": Vm("spare")}
    )


Change = Callable[[Lab, OvsdbClient], Awaitable[None]]


async def _settled(lab: Lab) -> None:
    await asyncio.to_thread(lab.daemons.settle)


async def vifs_come_and_go(lab: Lab, client: OvsdbClient) -> None:
    for _ in range(2):
        await asyncio.to_thread(lab.start, "spare", "xen3")
        await _settled(lab)
        await asyncio.to_thread(lab.stop, "spare")
        await _settled(lab)


async def networks_come_and_go(lab: Lab, client: OvsdbClient) -> None:
    other = Network("other", NetworkType.GENEVE, 50, 1450, key=9000)
    vlan = Network("other-vlan", NetworkType.VLAN, 51, 1500, key=9001, tag=777, uplink="trunk0")
    await client.transact(*(Insert("Network", to_columns(network)) for network in (other, vlan)))
    for name in ("other", "other-vlan"):  # a new tunnel port and a new VLAN on each host that it touches
        await client.transact(Update("Vif", (("id", "==", SPARE.id),), {"network": name}))
        await asyncio.to_thread(lab.start, "spare", "xen3")
        await _settled(lab)
        await asyncio.to_thread(lab.stop, "spare")
        await _settled(lab)
    await client.transact(Update("Vif", (("id", "==", SPARE.id),), {"network": "vx"}))
    await client.transact(
        Delete("Network", (("name", "==", "other"),)), Delete("Network", (("name", "==", "other-vlan"),))
    )
    await _settled(lab)


async def hosts_come_and_go(lab: Lab, client: OvsdbClient) -> None:
    far = Host("far", "10.99.0.77")
    await client.transact(Insert("Host", to_columns(far)))
    await _settled(lab)
    await client.transact(Update("Host", (("name", "==", "far"),), {"address": "10.99.0.78"}))
    await _settled(lab)
    await client.transact(Delete("Host", (("name", "==", "far"),)))
    await _settled(lab)


async def mtu_changes(lab: Lab, client: OvsdbClient) -> None:
    for mtu in (1400, 1450):
        await client.transact(Update("Network", (("name", "==", "vx"),), {"mtu": mtu}))
        await _settled(lab)


async def uplinks_come_and_go(lab: Lab, client: OvsdbClient) -> None:
    """An uplink whose place is before the others' gives every VLAN segment of the host another number."""
    early = Uplink("aaa", ("ghost0",))
    await client.transact(Insert("Uplink", {**to_columns(early), "host": "xen3"}))
    await asyncio.sleep(0.5)
    await client.transact(Delete("Uplink", (("host", "==", "xen3"), ("name", "==", "aaa"))))
    await _settled(lab)


async def members_come_and_go(lab: Lab, client: OvsdbClient) -> None:
    """Those of a bond that carry nothing at the moment."""
    shown = lab.ovs("xen3").appctl("bond/show", "bond-trunk0")
    in_use = re.search(r"member (\S+): enabled\s+active member", shown)
    assert in_use, shown
    (spare, _) = (member for member in BOND.members if member != in_use[1])
    fewer = replace(BOND, members=tuple(member for member in BOND.members if member != spare))
    for uplink in (fewer, BOND):
        await client.transact(Update("Uplink", (("host", "==", "xen3"), ("name", "==", "trunk0")), to_columns(uplink)))
        await _settled(lab)
        shown = lab.ovs("xen3").appctl("bond/show", "bond-trunk0")
        assert set(re.findall(r"(?m)^member (\S+):", shown)) == set(uplink.members)


def built() -> Lab:
    lab = Lab.up(pool(), name=new_name(), driver=Driver.NETNS, daemons=True)
    try:
        lab.start_all()
    except BaseException:
        lab.down()
        raise
    return lab


@pytest.fixture(scope="module")
def shared(netns: None) -> Iterator[SharedLab]:
    """Each change ends as it began, so all are made in one lab."""
    made = SharedLab(built)
    yield made
    made.down()


@pytest.mark.parametrize(
    "change",
    [vifs_come_and_go, networks_come_and_go, hosts_come_and_go, mtu_changes, uplinks_come_and_go, members_come_and_go],
)
async def test_others_lose_nothing(shared: SharedLab, change: Change) -> None:
    pairs = [(f"{n}-{a}0/0", f"{n}-{b}0/0") for n in WATCHED for a, b in ((1, 2), (2, 1))]
    pairs += [("vlan-10/0", "vlan-30/0"), ("vlan-30/0", "vlan-10/0")]
    with shared.lent() as lab:
        async with OvsdbClient([f"unix:{lab.daemons.pool_socket}"], "Vnet") as client:
            with contextlib.ExitStack() as stack:
                streams = {pair: (stack.enter_context(lab.stream(*pair, period_ms=2)), pair[1]) for pair in pairs}
                await asyncio.to_thread(go_on, streams)
                await change(lab, client)
                await asyncio.to_thread(go_on, streams)
        for pair, (stream, target) in streams.items():
            got = stream.report.at(target)
            assert (got.lost, got.duplicated) == (0, 0), (pair, got.lost_numbers, len(stream.report.sent))
            assert set(stream.report.received) == {target}
