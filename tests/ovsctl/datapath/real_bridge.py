"""A real Open vSwitch bridge on the dummy datapath, driven frame by frame: the reference for the emulated bridge."""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ovsctl.appctl import call_sync
from ovsctl.openflow import Flow, FlowMod, Group, Meter
from ovsctl.openflow.action_text import format_actions
from ovsctl.openflow.client import OpenFlowClient
from ovsctl.openflow.messages import FragmentHandling
from ovsctl.openflow.text import format_flow
from tests.polling import wait_until
from tests.servers import Vswitchd, run, vswitchd

BRIDGE = "br0"
SENTINEL_PORT = 60000
SENTINEL = b"\x02\0\0\0\0\x99\x02\0\0\0\0\x98\x88\xb5".ljust(60, b"\0")
SENTINEL_FLOW = f"table=0,priority=65535,dl_type=0x88b5,dl_dst=02:00:00:00:00:99,actions=output:{SENTINEL_PORT}"


class Pcap:
    """The frames that a port sent, read as they are written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.at = 24

    def new(self) -> list[bytes]:
        """The frames since the last call; one that is written only in part waits for the next."""
        if not self.path.exists():
            return []
        data = self.path.read_bytes()
        frames = []
        while len(data) - self.at >= 16:
            size = struct.unpack_from("<I", data, self.at + 8)[0]
            if len(data) - self.at - 16 < size:
                break
            frames.append(data[self.at + 16 : self.at + 16 + size])
            self.at += 16 + size
        return frames


NO_TEXT = re.compile("port=CONTROLLER|meter:.*meter:")  # OpenFlow 1.5 takes these, ovs-ofctl does not read them


@dataclass
class RealBridge:
    """One bridge with dummy ports 1..n that send what they are given and record what they send."""

    switchd: Vswitchd
    ports: list[int]
    pcaps: dict[int, Pcap] = field(default_factory=dict)

    def set(
        self,
        flows: Iterable[Flow],
        groups: Iterable[Group] = (),
        meters: Iterable[Meter] = (),
        *,
        keep_connections: bool = False,
        fragments: FragmentHandling = FragmentHandling.NORMAL,
    ) -> None:
        """Install these flows, groups and meters, and no others."""
        self.switchd.ofctl("set-frags", BRIDGE, fragments.name.lower().replace("_", "-"))
        directory = self.switchd.server.dir
        installed = list(flows)
        texts = map(format_flow, installed)
        (directory / "flows").write_text(
            "\n".join([SENTINEL_FLOW, *(text for text in texts if not NO_TEXT.search(text))]) + "\n"
        )
        buckets = (
            f"group_id={g.group_id},type={g.type.name.lower()},"
            + ",".join(
                f"bucket=bucket_id:{b.bucket_id},"
                + (f"watch_port:{b.watch_port}," if b.watch_port is not None else "")
                + f"actions={format_actions(b.actions)}"
                for b in g.buckets
            )
            for g in groups
        )
        (directory / "groups").write_text("\n".join(buckets) + "\n")
        self.switchd.ofctl("del-flows", BRIDGE)
        self.switchd.ofctl("del-groups", BRIDGE)
        self.switchd.ofctl("del-meters", BRIDGE)
        for meter in meters:
            self.switchd.ofctl("add-meter", BRIDGE, format_meter(meter))
        self.switchd.ofctl("add-groups", BRIDGE, str(directory / "groups"))
        self.switchd.ofctl("--bundle", "add-flows", BRIDGE, str(directory / "flows"))
        if by_wire := [FlowMod.add(flow) for flow in installed if NO_TEXT.search(format_flow(flow))]:
            asyncio.run(self._add(by_wire))
        self.appctl("fdb/flush", BRIDGE)
        if not keep_connections:
            self.appctl("dpctl/flush-conntrack")

    async def _add(self, mods: list[FlowMod]) -> None:
        async with OpenFlowClient(f"unix:{self.switchd.server.dir}/{BRIDGE}.mgmt") as client:
            await client.bundle(mods)

    def appctl(self, *args: str) -> str:
        return call_sync(self.switchd.control, *args)

    def send(self, port: int, frame: bytes) -> list[tuple[int, bytes]]:
        """What leaves when a frame comes in, by port."""
        # Datapath flows follow a change of tables or learned addresses a little later; without any there is no "later".
        self.appctl("revalidator/purge")
        self.appctl("netdev-dummy/receive", f"p{port}", frame.hex())
        self.appctl("netdev-dummy/receive", f"p{port}", SENTINEL.hex())
        end = self.pcaps[SENTINEL_PORT]
        wait_until(lambda: SENTINEL in end.new(), "the sentinel")
        return [(number, got) for number in self.ports for got in self.pcaps[number].new()]


def format_meter(meter: Meter) -> str:
    """A meter as ovs-ofctl takes it."""
    bands = ",".join(
        f"type=drop,rate={band.rate}" + (f",burst_size={band.burst}" if band.burst else "") for band in meter.bands
    )
    unit, burst = "pktps" if meter.packets else "kbps", ",burst" if any(band.burst for band in meter.bands) else ""
    return f"meter={meter.meter_id},{unit}{burst},stats,bands={bands}"


@contextlib.contextmanager
def real_bridge(ports: Iterable[int], patches: Iterable[str] = ()) -> Iterator[RealBridge]:
    """A running bridge with these dummy ports."""
    with vswitchd() as switchd:
        numbers = [*ports, SENTINEL_PORT]
        directory = switchd.server.dir
        args = ["add-br", BRIDGE, "--", "set", "bridge", BRIDGE, "datapath_type=dummy", "fail_mode=secure",
                "protocols=OpenFlow10,OpenFlow15", "other_config:disable-in-band=true"]  # fmt: skip
        for number in numbers:
            args += ["--", "add-port", BRIDGE, f"p{number}", "--", "set", "interface", f"p{number}", "type=dummy",
                     f"ofport_request={number}", f"options:tx_pcap={directory}/p{number}.pcap"]  # fmt: skip
        switchd.server.vsctl(*args)
        bridge = RealBridge(switchd, numbers[:-1], {n: Pcap(directory / f"p{n}.pcap") for n in numbers})
        for pcap in bridge.pcaps.values():
            wait_until(pcap.path.exists, "pcap files")
        got = run("ovs-vsctl", f"--db={switchd.server.remote}", "get", "interface", f"p{numbers[0]}", "ofport")
        assert int(got) == numbers[0]
        yield bridge
