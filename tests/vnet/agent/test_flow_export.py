"""Flow exports on a real switch: collectors get what VIFs have sent, by IPFIX and NetFlow."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from tests.polling import until
from tests.vnet.agent.pool import TENANT, HostUnderTest, pool_of, vif
from tests.vnet.agent.test_metrics import send, udp
from vnet.compile import ovs
from vnet.objects import FlowCollector, FlowProtocol

Flow = tuple[str, str, int]  # source, destination, and its port
PACKETS, SOURCE, DESTINATION, PORT, UDP_PORT = 2, 8, 12, 11, 181  # information elements (IANA's registry of IPFIX)
FLOW: Flow = ("10.1.0.1", "10.1.0.2", 53)
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
        self.observers: set[bytes] = set()
        self.packets: Counter[Flow] = Counter()

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
            self.observers.add(found.get(OBSERVER, b""))
            if SOURCE in found and DESTINATION in found:
                port = found.get(PORT) or found.get(UDP_PORT) or b"\0"
                ends = str(IPv4Address(found[SOURCE])), str(IPv4Address(found[DESTINATION]))
                flow = (*ends, int.from_bytes(port, "big"))
                self.packets[flow] += int.from_bytes(found[PACKETS], "big")
                yield flow


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
async def test_collectors_are_told_of_what_vifs_send(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ovs, "ACTIVE_S", 1)
    ovs._rows.cache_clear()
    collectors = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for it in collectors:
        it.bind(("127.0.0.1", 0))
        it.setblocking(False)
    addresses = [f"127.0.0.1:{it.getsockname()[1]}" for it in collectors]
    seen: list[list[bytes]] = [[], []]
    observers: set[bytes] = set()
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
            observers.update(reader.observers)
            return all(FLOW in flows for flows in read)

        await until(both, "both collectors know of the flow")

        def all_are_told() -> bool:
            seen[0].extend(taken(collectors[0]))
            reader = IpfixReader()
            told = [flow for data in seen[0] for flow in reader.read(data)]
            packets = reader.packets[FLOW]
            assert packets <= sent, f"each frame is told of once: {told}"
            return packets == sent

        await until(all_are_told, "IPFIX has told of each frame")
        assert observers == {b"xen1"}, "each record names the host that saw it"
        assert {data[:2] for data in seen[0]} == {b"\0\x0a"}  # versions: IPFIX is 10
        assert {data[:2] for data in seen[1]} == {b"\0\x05"}
        assert "sampling=64" in host.switch.server.vsctl("--columns=sampling", "list", "sflow").replace(" ", "").replace(":", "=")  # fmt: skip
        await pool.client.transact(*(gone(name) for name in ("flows", "old", "second")))
        await until(lambda: column(host, "ipfix") == column(host, "netflow") == column(host, "sflow") == "[]", "none")
    for it in collectors:
        it.close()
    ovs._rows.cache_clear()


def gone(name: str) -> object:
    from ovsctl.ovsdb import Delete

    return Delete("FlowCollector", (("name", "==", name),))
