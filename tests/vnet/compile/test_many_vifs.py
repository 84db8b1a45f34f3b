"""A network with thousands of VIFs on one host: its flood is divided over flows that fit a message, each VIF gets a frame once."""

from __future__ import annotations

import asyncio
import re

import pytest

from ovsctl.appctl import call_sync
from ovsctl.openflow import Flow, FlowMod
from ovsctl.openflow.client import OpenFlowClient
from tests.polling import wait_until
from tests.servers import Vswitchd, vswitchd
from vnet.compile import HostView, Table, flat
from vnet.compile.l2 import PART, flood_flows
from vnet.objects import Binding, Host, LockingMode, Network, NetworkType, Pool, PoolState, Vif
from vnet.sim import SimPool

MAX_MESSAGE = 65535  # ofp_header.length has 16 bits, OpenFlow 1.5.1 §7.1.1
BROADCAST = b"\xff" * 6


def mac(number: int) -> str:
    return (0x0A0000000000 + number).to_bytes(6, "big").hex(":")


def crowded(count: int, mode: LockingMode = LockingMode.LOCKED) -> PoolState:
    vifs = {f"v{n}": Vif(f"v{n}", "net", mac(n), locking_mode=mode) for n in range(count)}
    return PoolState(
        pool=Pool("lab"),
        hosts={"xen1": Host("xen1", "10.99.0.1"), "xen2": Host("xen2", "10.99.0.2")},
        networks={"net": Network("net", NetworkType.VXLAN, 1, 1450, 5001)},
        vifs=vifs,
        bindings={(id, "xen1"): Binding(id, "xen1", "net", vif.mac, 1, ready=True) for id, vif in vifs.items()},
    )


def flows(state: PoolState, ports: dict[str, int]) -> list[Flow]:
    return list(flood_flows(HostView.of(state, "xen1", ports, {"vnet-vxlan": 60000}), "net", ""))


@pytest.mark.parametrize("mode", [LockingMode.LOCKED, LockingMode.UNLOCKED])
@pytest.mark.parametrize("count", [PART, 2200, 4000])
def test_each_flow_fits_a_message(count: int, mode: LockingMode) -> None:
    found = flows(crowded(count, mode), {f"v{n}": n + 1 for n in range(count)})
    assert max(8 + len(FlowMod.add(flow).encode()) for flow in found) < MAX_MESSAGE
    assert (Table.FLOOD_PART in {flow.table for flow in found}) == (count > PART)


def test_a_vif_that_comes_changes_one_flow() -> None:
    state, ports = crowded(2200), {f"v{n}": n + 1 for n in range(2200)}
    without = {id: ofport for id, ofport in ports.items() if id != "v700"}
    assert len(set(flows(state, ports)) ^ set(flows(state, without))) == 2, "its part, before and after"


def test_a_broadcast_reaches_each_of_4000_vifs_once() -> None:
    pool = SimPool(crowded(4000))
    sent = BROADCAST + bytes.fromhex(mac(7).replace(":", "")) + b"\x88\xb5" + b"x" * 46
    got = pool.send("v7", sent)
    assert got.counts == {f"v{n}": 1 for n in range(4000) if n != 7}
    assert {item.frame for item in got} == {sent}
    assert got.lost == ()


def sent_by_port(switchd: Vswitchd) -> dict[int, int]:
    """The frames that each port sent."""
    return {
        int(port): int(sent)
        for port, sent in re.findall(r"port +(\d+): rx .*\n +tx pkts=(\d+)", switchd.ofctl("dump-ports", "br0"))
    }


def test_a_real_switch_takes_the_flows_of_4000_vifs_and_broadcasts_once(ovs: None) -> None:
    """Every 20th VIF has a port: to make thousands takes ovs-vswitchd a minute, and what leaves is the same."""
    pool = SimPool(crowded(4000))
    host = pool.hosts["xen1"]
    ofports = [host.ports[f"v{n}"] for n in range(0, 4000, 20)]
    with vswitchd() as switchd:
        args = ["add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy", "fail_mode=secure",
                "protocols=OpenFlow10,OpenFlow15", "other_config:disable-in-band=true"]  # fmt: skip
        for ofport in ofports:
            args += ["--", "add-port", "br0", f"v{ofport}", "--", "set", "interface", f"v{ofport}", "type=dummy",
                     f"ofport_request={ofport}"]  # fmt: skip
        switchd.server.vsctl(*args)

        async def install() -> None:
            async with OpenFlowClient(f"unix:{switchd.server.dir}/br0.mgmt") as client:
                await client.bundle([FlowMod.add(flow) for flow in flat(host.compiled)])

        asyncio.run(install())
        source = bytes.fromhex(pool.vif("v20").mac.replace(":", ""))
        call_sync(switchd.control, "netdev-dummy/receive", f"v{ofports[1]}", (BROADCAST + source + b"\x88\xb5").hex())
        wait_until(lambda: sum(sent_by_port(switchd).values()) >= len(ofports) - 1, "the copies")
        assert sent_by_port(switchd) == {ofport: int(ofport != ofports[1]) for ofport in ofports}
        warnings = [line for line in switchd.log.read_text().splitlines() if re.search(r"\|(WARN|ERR)\|", line)]
    assert [line for line in warnings if "xlate" in line or "ofproto" in line] == []
