"""A network with thousands of VIFs on one host: its flood is divided over flows and translations, and each VIF gets a frame once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import raw

from ovsctl.appctl import call_sync
from ovsctl.openflow import Flow, FlowMod, GroupAction
from ovsctl.openflow.client import OpenFlowClient
from ovsctl.openflow.messages import GroupMod, MeterMod
from tests.polling import wait_until
from tests.servers import Vswitchd, vswitchd
from vnet.compile import GROUPS, FlowSource, HostView, Table, flat, meters_of
from vnet.compile.flows import Entries
from vnet.compile.l2 import flood_flows
from vnet.compile.parts import MAX_RESUBMITS, MAX_UNDIVIDED
from vnet.objects import (
    Binding,
    Host,
    LockingMode,
    Network,
    NetworkType,
    Pool,
    PoolState,
    QosClass,
    SecurityGroup,
    Verdict,
    Vif,
)
from vnet.sim import SimPool

# Warnings about packets: not those of a busy machine, nor of revalidator/purge beside the revalidator's threads.
# Revalidators complain of cached flows that went while they looked, as they do whenever flows change under load.
ABOUT_PACKETS = re.compile(
    r"\|(ofproto|dpif|odp|netdev|bridge)(?![^|]*\(revalidator)[^|]*\|(WARN|ERR)\|(?!.*failed to (flow_get|put\[modify\]|flow_del))"
)
MAX_MESSAGE = 65535  # ofp_header.length has 16 bits, OpenFlow 1.5.1 §7.1.1


def mac(number: int) -> str:
    return (0x0A0000000000 + number).to_bytes(6, "big").hex(":")


def crowded(count: int, mode: LockingMode = LockingMode.LOCKED, groups: int = 0, qos: str | None = None) -> PoolState:
    """A pool with so many VIFs of one network on host xen1, each in so many security groups that allow everything."""
    allowing = {
        f"g{n:02}": SecurityGroup(f"g{n:02}", n + 1, egress=Verdict.ALLOW, ingress=Verdict.ALLOW) for n in range(groups)
    }
    vifs = {
        f"v{n}": Vif(f"v{n}", "net", mac(n), locking_mode=mode, groups=tuple(allowing), qos=qos) for n in range(count)
    }
    return PoolState(
        pool=Pool("lab"),
        hosts={"xen1": Host("xen1", "10.99.0.1"), "xen2": Host("xen2", "10.99.0.2")},
        networks={"net": Network("net", NetworkType.VXLAN, 1, 1450, 5001)},
        vifs=vifs,
        groups=allowing,
        qos={"wide": QosClass("wide", from_vm=10_000_000_000, to_vm=10_000_000_000)},
        bindings={(id, "xen1"): Binding(id, "xen1", "net", vif.mac, 1, ready=True) for id, vif in vifs.items()},
    )


def flows(state: PoolState, ports: dict[str, int]) -> list[Flow]:
    return list(flood_flows(HostView.of(state, "xen1", ports, {"vnet-vxlan": 60000}), "net", ""))


def frames(vif: Vif) -> dict[str, bytes]:
    """Frames to everyone, one for each way through the tables of policy."""
    everyone = Ether(src=vif.mac, dst="ff:ff:ff:ff:ff:ff")
    cluster = Ether(src=vif.mac, dst="03:bf:0a:00:00:09")
    solicited = Ether(src=vif.mac, dst="33:33:ff:00:00:01") / IPv6(src="fe80::1", dst="ff02::1:ff00:1", hlim=255)
    return {
        "found": raw(everyone / ARP(op="who-has", hwsrc=vif.mac, psrc="10.0.0.1", pdst="10.0.0.2")),
        "neighbour": raw(solicited / ICMPv6ND_NS(tgt="fe80::1:1")),
        "judged": raw(everyone / IP(src="10.0.0.1", dst="255.255.255.255") / UDP(sport=5000, dport=5001) / b"hello"),
        "tracked": raw(cluster / IP(src="10.0.0.1", dst="10.0.0.9") / UDP(sport=5000, dport=5001) / b"hello"),
        "untracked": raw(Ether(src=vif.mac, dst="ff:ff:ff:ff:ff:ff", type=0x88B5) / (b"x" * 46)),
    }


@pytest.mark.parametrize("mode", [LockingMode.LOCKED, LockingMode.UNLOCKED])
@pytest.mark.parametrize("count", [MAX_UNDIVIDED, 2200, 4000])
def test_each_flow_fits_a_message(count: int, mode: LockingMode) -> None:
    found = flows(crowded(count, mode), {f"v{n}": n + 1 for n in range(count)})
    assert max(8 + len(FlowMod.add(flow).encode()) for flow in found) < MAX_MESSAGE
    assert (Table.FLOOD_PART in {flow.table for flow in found}) == (count > MAX_UNDIVIDED)


def test_a_vif_that_comes_changes_one_flow() -> None:
    state, ports = crowded(2200), {f"v{n}": n + 1 for n in range(2200)}
    without = {id: ofport for id, ofport in ports.items() if id != "v700"}
    assert len(set(flows(state, ports)) ^ set(flows(state, without))) == 2, "its part, before and after"


def test_parts_are_recirculated_only_where_one_translation_is_not_enough() -> None:
    def recirculated(state: PoolState) -> bool:
        found = flows(state, {id: n + 1 for n, id in enumerate(state.vifs)})
        return any(isinstance(action, GroupAction) for flow in found for action in flow.actions)

    assert not recirculated(crowded(MAX_RESUBMITS))
    assert recirculated(crowded(MAX_RESUBMITS + 1))
    assert not recirculated(crowded(MAX_RESUBMITS // 4, qos="wide"))
    assert recirculated(crowded(1000, qos="wide"))
    assert not recirculated(crowded(180, groups=1))
    assert recirculated(crowded(300, groups=1))


@pytest.mark.parametrize(
    ("count", "groups", "qos"), [(2600, 0, None), (300, 1, None), (60, 32, None), (250, 2, "wide")]
)
def test_a_frame_to_everyone_reaches_each_vif_once(count: int, groups: int, qos: str | None) -> None:
    pool = SimPool(crowded(count, groups=groups, qos=qos))
    for way, frame in frames(pool.vif("v7")).items():
        got = pool.send("v7", frame)
        assert got.counts == {f"v{n}": 1 for n in range(count) if n != 7}, way
        assert {item.frame for item in got} == {frame}
        assert got.lost == ()


def sent_by_port(switchd: Vswitchd) -> dict[str, int]:
    """The frames that each port sent."""
    found = re.findall(r"port +(\d+): rx .*\n +tx pkts=(\d+)", switchd.ofctl("dump-ports", "br0"))
    return {port: int(sent) for port, sent in found}


def add_ports(switchd: Vswitchd, ofports: Sequence[int]) -> None:
    for start in range(0, len(ofports), 500):
        args: list[str] = []
        for ofport in ofports[start : start + 500]:
            args += ["--", "add-port", "br0", f"v{ofport}", "--", "set", "interface", f"v{ofport}", "type=dummy",
                     f"ofport_request={ofport}"]  # fmt: skip
        switchd.server.vsctl(*args[1:])


async def program(switchd: Vswitchd, compiled: dict[FlowSource, Entries]) -> None:
    async with OpenFlowClient(f"unix:{switchd.server.dir}/br0.mgmt") as client:
        known = {meter.meter_id for meter in await client.meters()}
        await client.apply(
            [
                *(GroupMod.add_or_modify(group) for group in GROUPS),
                *(MeterMod.modify(it) if it.meter_id in known else MeterMod.add(it) for it in meters_of(compiled)),
                FlowMod.delete_all(),
                *(FlowMod.add(flow) for flow in flat(compiled)),
            ]
        )


def deliveries(switchd: Vswitchd, ofport: int, frame: bytes, expected: int) -> dict[str, int]:
    """How often each port sent a frame that came in by `ofport`, once they have sent as many as expected."""
    before = sent_by_port(switchd)
    call_sync(switchd.control, "netdev-dummy/receive", f"v{ofport}", frame.hex())

    def sent() -> dict[str, int]:
        return {port: now - before[port] for port, now in sent_by_port(switchd).items() if port.isdecimal()}

    wait_until(lambda: sum(sent().values()) >= expected, "the copies")
    return sent()


def test_a_real_switch_delivers_to_thousands_once_and_warns_of_nothing(ovs: None) -> None:
    """With 300, 1,000 and 2,000 VIFs in no security group and in one, and with rates."""
    with vswitchd() as switchd:
        switchd.server.vsctl(
            "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy", "fail_mode=secure",
            "protocols=OpenFlow10,OpenFlow15", "other_config:disable-in-band=true",
        )  # fmt: skip
        plugged: list[int] = []
        for count, groups, qos in (
            (300, 0, None), (300, 1, None), (1000, 0, None), (1000, 1, "wide"), (2000, 0, None), (2000, 1, None),
        ):  # fmt: skip
            pool = SimPool(crowded(count, groups=groups, qos=qos))
            host = pool.hosts["xen1"]
            ofports = sorted(host.ports.values())
            add_ports(switchd, ofports[len(plugged) :])
            plugged, sender = ofports, ofports[6]
            asyncio.run(program(switchd, host.compiled))
            call_sync(switchd.control, "revalidator/purge")  # no frame is sent as it was before
            for way, frame in frames(pool.vif(host.vif_at[sender])).items():
                sent = deliveries(switchd, sender, frame, len(ofports) - 1)
                assert sent == {str(ofport): int(ofport != sender) for ofport in ofports}, (count, groups, qos, way)
        assert [line for line in switchd.log.read_text().splitlines() if ABOUT_PACKETS.search(line)] == []
