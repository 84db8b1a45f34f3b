"""Flow exports on real switches: collectors get what VIFs have sent, by IPFIX and NetFlow, and of single VIFs under their names."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address

import pytest

from tests.polling import until
from tests.vnet.agent.pool import TENANT, HostUnderTest, pool_of, vif
from tests.vnet.agent.test_metrics import send, udp
from vnet.compile import flow_export, ovs
from vnet.objects import BindingState, FlowCollector, FlowProtocol

Flow = tuple[str, str, int]  # source, destination, and its port
PACKETS, SOURCE, DESTINATION, PORT, UDP_PORT, WAY = (
    2,
    8,
    12,
    11,
    181,
    61,
)  # information elements (IANA's registry of IPFIX)
FLOW: Flow = ("10.1.0.1", "10.1.0.2", 53)
BACK: Flow = ("10.1.0.2", "10.1.0.1", 9)
IN, OUT = b"\0", b"\1"  # of the switch, by flowDirection
TEMPLATE = 2
OBSERVER = 0x8000 | 898  # virtualObsID, of an enterprise (ovs-vswitchd.conf.db(5), IPFIX)


def netflow(data: bytes) -> Iterator[Flow]:
    """The records of a datagram of NetFlow 5."""
    for at in range(24, len(data), 48):
        source, destination = data[at : at + 4], data[at + 4 : at + 8]
        yield str(IPv4Address(source)), str(IPv4Address(destination)), int.from_bytes(data[at + 34 : at + 36], "big")


class IpfixReader:
    """Reads IPFIX (RFC 7011) of one sender: its templates, and by them its records."""

    def __init__(self) -> None:
        self.templates: dict[int, list[tuple[int, int]]] = {}
        self.packets: Counter[tuple[bytes, bytes, Flow]] = Counter()  # by observer and direction

    def read(self, data: bytes) -> Iterator[Flow]:
        at = 16
        while at + 4 <= len(data):
            number, length = struct.unpack_from("!HH", data, at)
            content = data[at + 4 : at + length]
            if number == TEMPLATE:
                self._learn(content)
            elif number in self.templates:
                yield from self._records(self.templates[number], content)
            at += length

    def _learn(self, content: bytes) -> None:
        at = 0
        while at + 4 <= len(content):
            number, count = struct.unpack_from("!HH", content, at)
            at += 4
            fields = []
            for _ in range(count):
                element, length = struct.unpack_from("!HH", content, at)
                at += 8 if element & 0x8000 else 4
                fields.append((element, length))
            self.templates[number] = fields

    def _records(self, fields: list[tuple[int, int]], content: bytes) -> Iterator[Flow]:
        at = 0
        while at + sum(length for _, length in fields if length != 0xFFFF) <= len(content) and at < len(content):
            found: dict[int, bytes] = {}
            for element, fixed in fields:
                length = fixed
                if fixed == 0xFFFF:  # of variable length: a byte, or three, say which (§7)
                    length, at = content[at], at + 1
                    if length == 255:
                        length, at = int.from_bytes(content[at : at + 2], "big"), at + 2
                found[element] = content[at : at + length]
                at += length
            if SOURCE in found and DESTINATION in found:
                port = found.get(PORT) or found.get(UDP_PORT) or b"\0"
                ends = str(IPv4Address(found[SOURCE])), str(IPv4Address(found[DESTINATION]))
                flow = (*ends, int.from_bytes(port, "big"))
                self.packets[found.get(OBSERVER, b""), found[WAY], flow] += int.from_bytes(found[PACKETS], "big")
                yield flow


@pytest.fixture
def collectors(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """Two collectors, and hosts that tell them each second."""
    monkeypatch.setattr(flow_export, "ACTIVE_S", 1)
    ovs._rows.cache_clear()
    with ExitStack() as stack:
        found = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)]
        for it in found:
            it.bind(("127.0.0.1", 0))
            it.setblocking(False)
        yield found
    ovs._rows.cache_clear()


def taken(collector: socket.socket) -> list[bytes]:
    found = []
    while True:
        try:
            found.append(collector.recv(65536))
        except BlockingIOError:
            return found


def column(host: HostUnderTest, name: str) -> str:
    return host.switch.server.vsctl("get", "bridge", "br-int", name).strip()


@pytest.mark.usefixtures("ovs")
async def test_collectors_are_told_of_what_vifs_send(collectors: list[socket.socket]) -> None:
    addresses = [f"127.0.0.1:{it.getsockname()[1]}" for it in collectors]
    seen: list[list[bytes]] = [[], []]
    async with pool_of("xen1", networks=(TENANT,)) as pool:
        host = pool.hosts["xen1"]
        await pool.insert(
            vif(1),
            vif(2),
            FlowCollector("flows", FlowProtocol.IPFIX, addresses[0], 1),
            FlowCollector("old", FlowProtocol.NETFLOW, addresses[1]),
            FlowCollector("second", FlowProtocol.SFLOW, "127.0.0.1:6343", 64),
        )
        for number in (1, 2):
            host.add_port(f"p{number}", f"vm{number}/0")
            await pool.wait_ready(f"vm{number}/0", "xen1")
        await until(lambda: column(host, "ipfix") != "[]" and column(host, "netflow") != "[]", "the exports")

        sent = 0

        async def both() -> bool:
            nonlocal sent
            send(host, "p1", udp(1, 2, port=53), 1)
            sent += 1
            await asyncio.sleep(0.1)
            for number, it in enumerate(collectors):
                seen[number] += taken(it)
            reader = IpfixReader()
            read = (
                {flow for data in seen[0] for flow in reader.read(data)},
                {f for data in seen[1] for f in netflow(data)},
            )
            return all(FLOW in flows for flows in read)

        await until(both, "both collectors know of the flow")

        def all_are_told() -> bool:
            seen[0].extend(taken(collectors[0]))
            reader = IpfixReader()
            told = [flow for data in seen[0] for flow in reader.read(data)]
            assert {observer for observer, _, _ in reader.packets} == {b"xen1"}, (
                "each record names the host that saw it"
            )
            packets = reader.packets[b"xen1", IN, FLOW]
            assert packets <= sent, f"each frame is told of once: {told}"
            return packets == sent

        await until(all_are_told, "IPFIX has told of each frame")
        assert {data[:2] for data in seen[0]} == {b"\0\x0a"}  # versions: IPFIX is 10
        assert {data[:2] for data in seen[1]} == {b"\0\x05"}
        assert "sampling=64" in host.switch.server.vsctl("--columns=sampling", "list", "sflow").replace(" ", "").replace(":", "=")  # fmt: skip
        await pool.client.transact(*(gone(name) for name in ("flows", "old", "second")))
        await until(lambda: column(host, "ipfix") == column(host, "netflow") == column(host, "sflow") == "[]", "none")


def gone(name: str) -> object:
    from ovsctl.ovsdb import Delete

    return Delete("FlowCollector", (("name", "==", name),))


def sets(host: HostUnderTest) -> list[str]:
    """The numbers of the sets of collectors of a host's switch."""
    return host.switch.server.vsctl("--bare", "--columns=id", "list", "Flow_Sample_Collector_Set").split()


@pytest.mark.usefixtures("ovs")
async def test_single_vifs_are_told_of_by_their_names_wherever_they_run(collectors: list[socket.socket]) -> None:
    collector, reader = collectors[0], IpfixReader()
    told = reader.packets
    here, there = (f"vif=vm1/0 network=tenant host={name}".encode() for name in ("xen1", "xen2"))
    wanted = {(here, IN, FLOW): 5, (here, OUT, BACK): 3}

    def all_are_told() -> bool:
        for data in taken(collector):
            list(reader.read(data))
        assert all(told[key] <= wanted.get(key, 0) for key in told), told
        return told == wanted

    async with pool_of("xen1", "xen2", networks=(TENANT,)) as pool:
        one, two = pool.hosts.values()
        foreign = (
            "--id=@b",
            "get",
            "bridge",
            "br-int",
            "--",
            "create",
            "Flow_Sample_Collector_Set",
            "id=1",
            "bridge=@b",
        )
        one.switch.server.vsctl(*foreign)
        address = f"127.0.0.1:{collector.getsockname()[1]}"
        await pool.insert(vif(1), vif(2), FlowCollector("siem", FlowProtocol.IPFIX, address, 1, of=("vm1/0",)))
        for number in (1, 2):
            one.add_port(f"p{number}", f"vm{number}/0")
            await pool.wait_ready(f"vm{number}/0", "xen1")
        await until(lambda: len(sets(one)) == 2, "the set of the VIF")
        send(one, "p1", udp(1, 2, port=53), 5)
        send(one, "p2", udp(2, 1), 3)
        await until(all_are_told, "each frame is told of once")

        (own,) = set(sets(one)) - {"1"}
        one.switch.server.vsctl("--all", "destroy", "Flow_Sample_Collector_Set")
        await until(lambda: sets(one) == [own], "somebody has taken it off: it comes back")
        one.switch.server.vsctl(*foreign)
        send(one, "p1", udp(1, 2, port=53), 1)
        wanted[here, IN, FLOW] += 1
        await until(all_are_told, "the frame after that")

        await pool.update("Vif", ("id", "vm1/0"), incoming="xen2")
        two.add_port("p1", "vm1/0")
        await pool.wait_ready("vm1/0", "xen2")
        await until(lambda: len(sets(two)) == 1, "the set where it comes to")
        await two.agent.open(["vm1/0"], BindingState.ACTIVE)
        await pool.update("Vif", ("id", "vm1/0"), incoming=None, host="xen2")
        one.switch.server.vsctl("del-port", "p1")
        await until(lambda: sets(one) == ["1"], "its former host has none of it")
        send(two, "p1", udp(1, 2, port=53), 4)
        wanted[there, IN, FLOW] = 4
        await until(all_are_told, "what it sends there")
        await pool.client.transact(gone("siem"))
        await until(lambda: not sets(two) and sets(one) == ["1"], "nobody is told of it any more")
