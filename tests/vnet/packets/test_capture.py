"""Captures on running hosts: each frame once, with its direction, on whatever host its VIF is; dropped frames are told; nothing stays."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import RawPcapNgReader

from tests.labs import new_name
from tests.polling import wait_until
from vnet.api import CaptureCall
from vnet.client import Client, Invalid, NotFound, Unit
from vnet.compile import Category, Flowing, cookie, meter_of_capture
from vnet.lab import Driver, Lab
from vnet.objects import PoolState
from vnet.plan import desired_state
from vnet.topology import load
from vnet.util import pcapng
from vnet.util.pcapng import Block

pytestmark = pytest.mark.usefixtures("ovs")
PAGE = Path(__file__).parents[3] / "docs/capture.md"
DOCUMENT = b"""
apiVersion: vnet/v1
pool: captured
hosts:
  xen1: {address: 10.99.0.1, uplinks: {trunk0: {members: [eth1]}}}
  xen2: {address: 10.99.0.2, uplinks: {trunk0: {members: [eth1]}}}
networks: {lan: {type: vxlan}, native: {type: vlan, uplink: trunk0, tag: untagged}, blue: {type: vlan, uplink: trunk0, tag: 20}}
vms:
  web: {host: xen1, vifs: [{network: lan, mac: "0a:00:00:00:00:01", addresses: [10.1.0.1]}]}
  db: {host: xen2, vifs: [{network: lan, mac: "0a:00:00:00:00:02", addresses: [10.1.0.2]}]}
  trunk: {host: xen1, vifs: [{network: native, mac: "0a:00:00:00:00:04", trunk: [20], locking-mode: unlocked}]}
  tagged: {host: xen2, vifs: [{network: blue, mac: "0a:00:00:00:00:05", locking-mode: unlocked}]}
  log: {host: xen1, vifs: [{network: lan, mac: "0a:00:00:00:00:03", addresses: [10.1.0.3]}]}
"""


@pytest.fixture(scope="module")
def lab(netns: None) -> Iterator[Lab]:
    pool = desired_state(load(DOCUMENT, "captured.vnet.yaml"), PoolState())
    with Lab.up(pool, name=new_name(), driver=Driver.NETNS, daemons=True) as made:
        made.start_all()
        made.wait_ready()
        made.daemons.settle()
        yield made


@pytest.fixture
def client(lab: Lab) -> Iterator[Client]:
    with Client(f"unix:{lab.daemons.controller_socket}") as made:
        yield made


def frame(lab: Lab, source: str, target: str, payload: Packet) -> Packet:
    a, b = lab.vif(source), lab.vif(target)
    return Ether(src=a.mac, dst=b.mac) / IP(src=a.addresses[0], dst=b.addresses[0]) / payload


@dataclass
class Capturing:
    """A capture that a thread reads. data: its file; names: of its interfaces; frames: by name of the interface, in order; counts: of each interface, frames that came and
    were dropped."""

    client: Client
    call: CaptureCall
    data: bytearray = field(default_factory=bytearray)
    id: str = ""
    names: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    frames: list[tuple[str, bytes]] = field(default_factory=list)
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    error: BaseException | None = None

    def __enter__(self) -> Capturing:
        self.thread = threading.Thread(target=self._read)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        if self.thread.is_alive() and self.id:
            with Client(self.client.address) as other:
                other.end_capture(self.id)
        self.thread.join(20)
        assert not self.thread.is_alive()

    def _read(self) -> None:
        try:
            for block in self.client.capture(self.call):
                self.data += block
                self._take(block)
        except BaseException as error:
            self.error = error

    def _take(self, block: bytes) -> None:
        match pcapng.type_of(block):
            case Block.SECTION:
                self.id = pcapng.section_of(block)
            case Block.INTERFACE:
                name, comment = pcapng.interface_of(block)
                self.names.append(name)
                self.comments.append(comment)
            case Block.PACKET:
                number, _, data = pcapng.packet_of(block)
                self.frames.append((self.names[number], data))
            case Block.STATISTICS:
                number, came, dropped = pcapng.statistics_of(block)
                self.counts[self.names[number]] = came, dropped

    def begun(self, *names: str) -> None:
        wait_until(lambda: self.error or set(names) <= set(self.names), f"captures {names}, not {self.names}")
        if self.error is not None:
            raise self.error


def flows(lab: Lab) -> list[str]:
    """The flows and meters of captures, of all hosts."""
    found: list[str] = []
    mark = f"cookie={cookie(Category.CAPTURE, ''):#x}/{0xFFFFFF << 40:#x}"
    for host in lab.spec.hosts:
        ovs = lab.ovs(host.name)
        found += [line for line in ovs.ofctl("dump-flows", "br-int", mark).splitlines() if "cookie=" in line]
        meters = re.findall(r"meter=(\d+)", ovs.ofctl("-O", "OpenFlow15", "dump-meters", "br-int"))
        found += [
            f"meter {meter}" for meter in meters if int(meter) & ~0xF_FFFF == meter_of_capture(0, 0, Flowing.SENT)
        ]
    return found


ALL = ("web/0 sent, xen1", "web/0 received, xen1", "db/0 sent, xen2", "db/0 received, xen2")


def udp(lab: Lab, source: str, target: str, text: bytes, port: int = 53) -> Packet:
    return frame(lab, source, target, UDP(sport=40000, dport=port) / Raw(text))


def texts(capturing: Capturing) -> list[tuple[str, bytes]]:
    """What was captured: the interface of each frame, and the text in it."""
    return sorted((name, data.rstrip(b"\0")[42:]) for name, data in capturing.frames)


def test_each_frame_is_captured_once_with_its_direction_on_two_hosts(lab: Lab, client: Client, tmp_path: Path) -> None:
    with Capturing(client, CaptureCall(vifs=["web/0", "db/0"])) as capturing:
        capturing.begun(*ALL)
        assert lab.send("web/0", udp(lab, "web", "db", b"ask")).to == ["db/0"]
        assert lab.send("db/0", udp(lab, "db", "web", b"answer")).to == ["web/0"]
        assert lab.send("log/0", udp(lab, "log", "db", b"of others")).to == ["db/0"]
        wait_until(lambda: len(capturing.frames) >= 5, f"all frames come, not {capturing.frames}")
    assert texts(capturing) == [
        ("db/0 received, xen2", b"ask"),
        ("db/0 received, xen2", b"of others"),
        ("db/0 sent, xen2", b"answer"),
        ("web/0 received, xen1", b"answer"),
        ("web/0 sent, xen1", b"ask"),
    ]
    assert capturing.counts["db/0 received, xen2"] == (2, 0)
    assert all("wrong by" in comment for comment in capturing.comments)
    wait_until(lambda: not flows(lab), "nothing stays")
    path = tmp_path / "out.pcapng"
    path.write_bytes(capturing.data)
    read = [(meta.ifname.decode(), data) for data, meta in RawPcapNgReader(str(path))]
    assert read == capturing.frames
    fields = ("frame.interface_name", "frame.packet_flags_direction", "ip.src", "udp.dstport", "frame.time_epoch")
    shown = tshark(path, "-T", "fields", *(part for field in fields for part in ("-e", field)))
    lines = [line.split("\t") for line in shown.splitlines()]
    assert [line[0] for line in lines] == [name for name, _ in read]
    assert all(int(line[1], 0) == (2 if " sent," in line[0] else 1) for line in lines)
    assert {line[2] for line in lines} == {"10.1.0.1", "10.1.0.2", "10.1.0.3"}
    assert all(line[3] == "53" and abs(float(line[4]) - time.time()) < 600 for line in lines)
    (record,) = [entry for entry in client.history() if "captures packets" in entry.summary]
    assert "web/0, db/0" in record.summary


def tshark(path: Path, *args: str) -> str:
    """What tshark says of a file, as a user that may do nothing else."""
    found = subprocess.run(["tshark", "-r", str(path), *args], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_a_filter_is_the_switchs(lab: Lab, client: Client) -> None:
    call = CaptureCall(vifs=["web/0", "db/0"], filter="udp port 5432 and not src host 10.1.0.3")
    with Capturing(client, call) as capturing:
        capturing.begun(*ALL)
        for source, target, port in (("web", "db", 5432), ("web", "db", 53), ("log", "db", 5432), ("db", "web", 99)):
            assert lab.send(f"{source}/0", udp(lab, source, target, b"%d" % port, port)).to == [f"{target}/0"]
        wait_until(lambda: len(capturing.frames) >= 2, "the wanted frames come")
    assert texts(capturing) == [("db/0 received, xen2", b"5432"), ("web/0 sent, xen1", b"5432")]
    assert capturing.counts == {"db/0 received, xen2": (1, 0), "web/0 sent, xen1": (1, 0)} | dict.fromkeys(
        ("web/0 received, xen1", "db/0 sent, xen2"), (0, 0)
    )
    with pytest.raises(Invalid, match=r"\^") as refused:
        next(client.capture(CaptureCall(vifs=["web/0"], filter="tcp port nosuch")))
    assert refused.value.where == "filter"
    wait_until(lambda: not flows(lab), "nothing stays")


def test_two_captures_of_one_vif_and_a_frame_for_several(lab: Lab, client: Client) -> None:
    """Each has its own filter, snap and file; a broadcast is there once for each VIF that gets it."""
    to_all = Ether(src=lab.vif("db").mac, dst="ff:ff:ff:ff:ff:ff") / ARP(
        hwsrc=lab.vif("db").mac, psrc="10.1.0.2", pdst="10.1.0.9"
    )
    with Client(client.address) as another:
        first = Capturing(client, CaptureCall(vifs=["web/0", "log/0"], snap=20))
        second = Capturing(another, CaptureCall(vifs=["web/0"], filter="arp"))
        with first, second:
            first.begun("web/0 received, xen1", "log/0 received, xen1")
            second.begun("web/0 received, xen1")
            assert sorted(lab.send("db/0", to_all).to) == ["log/0", "web/0"]
            lab.send("db/0", udp(lab, "db", "web", b"no ARP"))
            wait_until(lambda: len(first.frames) >= 3 and second.frames, "the frames come")
    names = [name for name, _ in first.frames]
    assert sorted(names) == ["log/0 received, xen1", "web/0 received, xen1", "web/0 received, xen1"]
    assert {len(data) for _, data in first.frames} == {20}
    assert [name for name, _ in second.frames] == ["web/0 received, xen1"]
    lengths = [meta.wirelen for _, meta in RawPcapNgReader(io.BytesIO(bytes(first.data)))]
    assert all(length > 40 for length in lengths)


def test_what_is_over_the_rate_is_dropped_and_counted_and_forwarded(lab: Lab, client: Client) -> None:
    with Capturing(client, CaptureCall(vifs=["web/0"], rate=6)) as capturing:
        capturing.begun("web/0 sent, xen1")
        assert lab.send("web/0", [udp(lab, "web", "db", b"%d" % n) for n in range(60)]).to == ["db/0"] * 60
        wait_until(lambda: capturing.counts.get("web/0 sent, xen1", (0, 0))[0] == 60, "all are counted")
    came, dropped = capturing.counts["web/0 sent, xen1"]
    assert came == 60
    assert 3 <= len(capturing.frames) == came - dropped < 30


def test_a_trunk_gets_its_frames_with_their_tags(lab: Lab, client: Client) -> None:
    arp = Ether(src=lab.vif("tagged").mac, dst="ff:ff:ff:ff:ff:ff") / ARP(
        hwsrc=lab.vif("tagged").mac, psrc="10.1.0.5", pdst="10.1.0.9"
    )
    back = Ether(src=lab.vif("trunk").mac, dst=lab.vif("tagged").mac) / Dot1Q(vlan=20) / IP() / UDP()
    with Capturing(client, CaptureCall(vifs=["trunk/0"], filter="vlan 20 and (arp or udp)")) as capturing:
        capturing.begun("trunk/0 sent, xen1", "trunk/0 received, xen1")
        (got,) = [item.frame for item in lab.send("tagged/0", arp) if item.to == "trunk/0"]
        assert lab.send("trunk/0", back).to == ["tagged/0"]
        other = Ether(src=lab.vif("tagged").mac, dst="ff:ff:ff:ff:ff:ff", type=0x88B5) / Raw(bytes(46))
        assert lab.send("tagged/0", other).to == ["trunk/0"]
        wait_until(lambda: len(capturing.frames) >= 2, "both come")
    (received,) = [data for name, data in capturing.frames if " received," in name]
    (sent,) = [data for name, data in capturing.frames if " sent," in name]
    assert received.rstrip(b"\0") == got.rstrip(b"\0")
    assert received[12:16] == sent[12:16] == b"\x81\x00\0\x14"


def test_it_goes_on_where_the_vm_moves(lab: Lab, client: Client) -> None:
    with Capturing(client, CaptureCall(vifs=["web/0"])) as capturing:
        capturing.begun("web/0 sent, xen1")
        client.prepare(Unit.of_vm("web"), "xen2")
        lab.plug("web", "xen2")
        wait_until(lambda: client.migration(Unit.of_vm("web")).phase == "prepared", "xen2 is prepared")
        capturing.begun("web/0 sent, xen2", "web/0 received, xen2")
        lab.run("web", "xen2", announce=True)
        wait_until(lambda: client.migration(Unit.of_vm("web")).phase == "active", "the VM is on xen2")
        client.finish(Unit.of_vm("web"))
        lab.unplug("web", "xen1")
        assert lab.send("web/0", udp(lab, "web", "log", b"from xen2")).to == ["log/0"]
        assert lab.send("log/0", udp(lab, "log", "web", b"to xen2")).to == ["web/0"]
        wait_until(lambda: {b"from xen2", b"to xen2"} <= {text for _, text in texts(capturing)}, "both come")
        lab.migrate("web", "xen1")

        def is_home() -> bool:
            """This migration does not wait for the capture."""
            assert lab.send("web/0", udp(lab, "web", "log", b"home")).to == ["log/0"]
            return ("web/0 sent, xen1", b"home") in texts(capturing)

        wait_until(is_home, "what it sends at home comes")
    found = sorted({(name, text) for name, text in texts(capturing) if b"xen2" in text or text == b"home"})
    assert found == [
        ("web/0 received, xen2", b"to xen2"), ("web/0 sent, xen1", b"home"), ("web/0 sent, xen2", b"from xen2")
    ]  # fmt: skip
    assert len(capturing.names) == len(set(capturing.names)) == 4
    wait_until(lambda: not flows(lab), "nothing stays")


@contextmanager
def ending(process: subprocess.Popen[str]) -> Iterator[None]:
    """Kills it after a failure, which a wait for its end would hide."""
    try:
        yield
    except BaseException:
        process.kill()
        raise


def test_whoever_dies_leaves_nothing(lab: Lab, client: Client, tmp_path: Path) -> None:
    """The caller is killed; the agent is, whose flows end by themselves, and another one goes on."""
    env = {**os.environ, "VNET_CONTROLLER": client.address}
    command = [sys.executable, "-m", "vnet.cli.main", "capture", "web", "db", "-w", str(tmp_path / "killed.pcapng")]
    caller = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
    assert caller.stderr is not None
    with caller, ending(caller):
        lines = [caller.stderr.readline(), caller.stderr.readline()]
        assert sorted(line.partition(":")[0] for line in lines) == ["capturing db/0 on xen2", "capturing web/0 on xen1"]
        found = [line for line in flows(lab) if "cookie=" in line]
        assert len(found) > 3
        assert all("hard_timeout=15," in line for line in found)
        caller.kill()
    wait_until(lambda: not flows(lab), "nothing stays")
    with Capturing(client, CaptureCall(vifs=["web/0"])) as capturing:
        capturing.begun("web/0 sent, xen1")
        lab.send("web/0", udp(lab, "web", "db", b"before"))
        wait_until(lambda: len(capturing.frames) == 1, "it comes")
        lab.daemons.kill("xen1")
        lab.daemons.start_agent("xen1", lab.ovs("xen1"))

        def goes_on() -> bool:
            """What is sent before the new agent knows of the capture is lost to it."""
            lab.send("web/0", udp(lab, "web", "db", b"after"))
            return len(capturing.frames) > 1

        wait_until(goes_on, "the new agent goes on")
    assert set(texts(capturing)) == {("web/0 sent, xen1", b"after"), ("web/0 sent, xen1", b"before")}
    wait_until(lambda: not flows(lab), "nothing stays")


def test_ctrl_c_ends_with_a_whole_file(lab: Lab, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "whole.pcapng"
    command = [sys.executable, "-m", "vnet.cli.main", "capture", "web/0", "-w", str(path)]
    env = {**os.environ, "VNET_CONTROLLER": client.address}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as caller, ending(caller):
        assert caller.stderr is not None
        assert caller.stderr.readline().startswith("capturing web/0 on xen1: times of host xen1")
        lab.send("web/0", udp(lab, "web", "db", b"last"))
        caller.send_signal(signal.SIGINT)
        summary = caller.stderr.read()
    assert caller.returncode == 0
    assert summary.startswith("1 frames,")
    assert str(path) in summary
    assert path.stat().st_mode & 0o777 == 0o600
    (line,) = tshark(path).splitlines()
    assert "10.1.0.1" in line
    blocks = list(pcapng.PcapngBlocks().feed(path.read_bytes()))
    assert sum(map(len, blocks)) == path.stat().st_size


def test_the_page_is_right(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    exec(code.replace("unix:/run/vnet/controller.sock", client.address).replace("web1", "web"), {})
    blocks = list(pcapng.PcapngBlocks().feed((tmp_path / "out.pcapng").read_bytes()))
    assert [pcapng.interface_of(block)[0] for block in blocks[1:3]] == ["web/0 sent, xen1", "web/0 received, xen1"]


@pytest.mark.parametrize(
    "call",
    [
        CaptureCall(vifs=[]),
        CaptureCall(vifs=["web/0", "web/0"]),
        CaptureCall(vifs=["web/0"], rate=2001),
        CaptureCall(vifs=["web/0"], snap=13),
        CaptureCall(vifs=["web/0"], seconds=3601),
        CaptureCall(vifs=["web/0"], filter="less 3"),
    ],
)
def test_what_is_refused(client: Client, call: CaptureCall) -> None:
    with pytest.raises(Invalid):
        next(client.capture(call))


def test_what_is_not_there(client: Client) -> None:
    with pytest.raises(NotFound, match="there is no VIF nosuch/0"):
        next(client.capture(CaptureCall(vifs=["nosuch/0"])))
    with pytest.raises(NotFound, match="there is no capture"):
        client.end_capture("nosuch")
