"""Packets of conversations, made of bytes: importing scapy costs half a second."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address

from vnet.objects import Protocol
from vnet.sim.errors import PacketError
from vnet.util.frames import BROADCAST, ethernet, mac_bytes

SYN, RST, ACK = 2, 4, 16
_NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17}
CLIENT_PORT = 49152
CLIENT_PORTS = 49152, 65536  # from, to below: the dynamic ones (RFC 6335 §6)
TTL = 64


class Part(Enum):
    """The packets of a conversation: the first, its answer, the end of a TCP handshake, the end of the connection."""

    REQUEST = "request"
    ANSWER = "answer"
    CONFIRM = "confirm"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class End:
    """One side of a conversation."""

    mac: str
    address: str


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation between two ends. port: the target's, with TCP and UDP.

    source_port: with ICMP the echo's identifier.
    """

    source: End
    target: End
    protocol: Protocol = Protocol.ICMP
    port: int = 0
    source_port: int = CLIENT_PORT

    @property
    def back(self) -> Talk:
        """The conversation with its ends swapped."""
        return replace(self, source=self.target, target=self.source)

    def frame(self, part: Part = Part.REQUEST, payload: bytes = b"") -> bytes:
        """A packet of the conversation; an answer goes from target to source."""
        answer = part is Part.ANSWER
        source, target = (self.target, self.source) if answer else (self.source, self.target)
        src, dst = ip_address(source.address), ip_address(target.address)
        if src.version != dst.version:
            raise PacketError(f"{src} and {dst} are not of one IP version")
        if self.protocol is Protocol.ICMP:
            proto, segment = _echo(src, dst, answer, self.source_port, payload)
        else:
            ports = (self.port, self.source_port) if answer else (self.source_port, self.port)
            proto, segment = _NUMBERS[self.protocol], self._segment(part, ports, payload, src, dst)
        return ethernet(target.mac, source.mac, 0x0800 if src.version == 4 else 0x86DD, ip(src, dst, proto, segment))

    def _segment(
        self,
        part: Part,
        ports: tuple[int, int],
        payload: bytes,
        src: IPv4Address | IPv6Address,
        dst: IPv4Address | IPv6Address,
    ) -> bytes:
        head = ports[0].to_bytes(2, "big") + ports[1].to_bytes(2, "big")
        if self.protocol is Protocol.UDP:
            length = (8 + len(payload)).to_bytes(2, "big")
            total = checksum(_pseudo(src, dst, 17, 8 + len(payload)) + head + length + b"\0\0" + payload) or 0xFFFF
            return head + length + total.to_bytes(2, "big") + payload
        flags = {Part.REQUEST: SYN, Part.ANSWER: SYN | ACK, Part.CONFIRM: ACK, Part.RESET: RST | ACK}[part]
        seq, ack = {Part.REQUEST: (100, 0), Part.ANSWER: (300, 101)}.get(part, (101, 301))
        head += seq.to_bytes(4, "big") + ack.to_bytes(4, "big") + (5 << 12 | flags).to_bytes(2, "big") + b"\xff\xff"
        total = checksum(_pseudo(src, dst, 6, 20 + len(payload)) + head + b"\0\0\0\0" + payload)
        return head + total.to_bytes(2, "big") + b"\0\0" + payload


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total = sum(int.from_bytes(data[n : n + 2], "big") for n in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ip(src: IPv4Address | IPv6Address, dst: IPv4Address | IPv6Address, proto: int, payload: bytes) -> bytes:
    """An IP packet."""
    if src.version == 6:
        return (6 << 28).to_bytes(4, "big") + len(payload).to_bytes(2, "big") + bytes((proto, TTL)) + src.packed + dst.packed + payload  # fmt: skip
    head = b"\x45\0" + (20 + len(payload)).to_bytes(2, "big") + b"\0\0\x40\0" + bytes((TTL, proto))
    total = checksum(head + b"\0\0" + src.packed + dst.packed)
    return head + total.to_bytes(2, "big") + src.packed + dst.packed + payload


def _pseudo(src: IPv4Address | IPv6Address, dst: IPv4Address | IPv6Address, proto: int, length: int) -> bytes:
    if src.version == 4:
        return src.packed + dst.packed + bytes((0, proto)) + length.to_bytes(2, "big")
    return src.packed + dst.packed + length.to_bytes(4, "big") + bytes((0, 0, 0, proto))


def _echo(
    src: IPv4Address | IPv6Address, dst: IPv4Address | IPv6Address, answer: bool, id: int, payload: bytes
) -> tuple[int, bytes]:
    rest = id.to_bytes(2, "big") + b"\0\x01" + payload
    if src.version == 4:
        head = bytes((0 if answer else 8, 0))
        return 1, head + checksum(head + b"\0\0" + rest).to_bytes(2, "big") + rest
    return 58, icmpv6(src, dst, bytes((129 if answer else 128, 0)), rest)


def icmpv6(src: IPv4Address | IPv6Address, dst: IPv4Address | IPv6Address, head: bytes, rest: bytes) -> bytes:
    """An ICMPv6 message. head: type and code; rest: the bytes after its checksum."""
    total = checksum(_pseudo(src, dst, 58, 4 + len(rest)) + head + b"\0\0" + rest)
    return head + total.to_bytes(2, "big") + rest


def resolve(talk: Talk) -> tuple[bytes, bytes]:
    """The request for the target's MAC and its answer, by ARP (RFC 826) or neighbour discovery (RFC 4861 §7.2)."""
    source, target = talk.source, talk.target
    src, dst = ip_address(source.address), ip_address(target.address)
    if src.version == 4:
        head = b"\0\x01\x08\0\x06\x04\0"
        ask = head + b"\x01" + mac_bytes(source.mac) + src.packed + b"\0" * 6 + dst.packed
        answer = head + b"\x02" + mac_bytes(target.mac) + dst.packed + mac_bytes(source.mac) + src.packed
        return ethernet(BROADCAST, source.mac, 0x0806, ask), ethernet(source.mac, target.mac, 0x0806, answer)
    group = IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | int(dst) & 0xFFFFFF)
    group_mac = "33:33:" + ":".join(f"{byte:02x}" for byte in group.packed[12:])
    ask = icmpv6(src, group, b"\x87\0", b"\0" * 4 + dst.packed + b"\x01\x01" + mac_bytes(source.mac))
    answer = icmpv6(dst, src, b"\x88\0", b"\x60\0\0\0" + dst.packed + b"\x02\x01" + mac_bytes(target.mac))
    hop = 255
    packets = (ip(src, group, 58, ask), ip(dst, src, 58, answer))
    limited = [packet[:7] + bytes((hop,)) + packet[8:] for packet in packets]
    return ethernet(group_mac, source.mac, 0x86DD, limited[0]), ethernet(source.mac, target.mac, 0x86DD, limited[1])
