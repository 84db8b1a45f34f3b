"""LLDP (802.1AB-2016) as bytes: what a station says of itself to the one at the other end of its cable.

One rule: a frame is hostile until it is parsed. What it says is text for people: it is cut, and made safe for a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Final, NamedTuple

from vnet.util.frames import TAG_TYPES, ethernet, mac_bytes
from vnet.util.printable import on_one_line

NEAREST_BRIDGE: Final = "01:80:c2:00:00:0e"  # table 7-1: no bridge forwards what is sent there
LLDP_TYPE: Final = 0x88CC
MAX_TEXT: Final = 100  # characters of a text that are kept
MAX_UNIT_BYTES: Final = 1500
END, CHASSIS, PORT, TTL, PORT_DESCRIPTION, SYSTEM_NAME, SYSTEM_DESCRIPTION, CAPABILITIES, ADDRESS = range(9)
ORGANIZATION: Final = 127
PORT_VLAN: Final = b"\x00\x80\xc2\x01"  # 802.1Q-2018 §D.2.1
# Subtypes of identifiers (tables 8-2, 8-3).
CHASSIS_MAC, CHASSIS_ADDRESS, CHASSIS_LOCAL, PORT_MAC, PORT_ADDRESS = 4, 5, 7, 3, 4
BRIDGE: Final = 1 << 2  # a capability
FAMILIES: Final = {1: AF_INET, 2: AF_INET6}  # IANA's address family numbers


class LldpUnit(NamedTuple):
    """What a station says of itself. ttl_s: how long that holds, 0 that it does not any more. address: by which it is managed. vlan: of untagged frames at its port; 0 where it says none."""

    chassis: str
    port: str
    ttl_s: int
    port_description: str = ""
    system: str = ""
    address: str = ""
    vlan: int = 0


def read_lldp(frame: bytes) -> LldpUnit | None:
    """The unit in a frame, with one VLAN tag at most; None of any other frame, and of a unit that does not begin as all do (§8.2)."""
    at = 16 if frame[12:14] in TAG_TYPES else 12
    if frame[at : at + 2] != LLDP_TYPE.to_bytes(2, "big"):
        return None
    parts = list(_parts(frame[at + 2 : at + 2 + MAX_UNIT_BYTES]))
    if [number for number, _ in parts[:3]] != [CHASSIS, PORT, TTL]:
        return None
    (_, chassis), (_, port), (_, ttl) = parts[:3]
    if len(chassis) < 2 or len(port) < 2 or len(ttl) < 2:
        return None
    found = {number: value for number, value in reversed(parts[3:]) if number != ORGANIZATION}
    vlans = [value[4:6] for number, value in parts[3:] if number == ORGANIZATION and value[:4] == PORT_VLAN]
    managed = found.get(ADDRESS, b"")
    return LldpUnit(
        _identifier(chassis, CHASSIS_MAC, CHASSIS_ADDRESS),
        _identifier(port, PORT_MAC, PORT_ADDRESS),
        int.from_bytes(ttl[:2], "big"),
        _text(found.get(PORT_DESCRIPTION, b"")),
        _text(found.get(SYSTEM_NAME, b"")),
        _address(managed[1 : 1 + managed[0]]) if managed else "",
        int.from_bytes(vlans[0], "big") & 0xFFF if vlans else 0,
    )


def _parts(unit: bytes) -> Iterator[tuple[int, bytes]]:
    """The TLVs of a unit: seven bits of type, nine of length, a value (§8.4). What is cut short ends it."""
    at = 0
    while at + 2 <= len(unit):
        head = int.from_bytes(unit[at : at + 2], "big")
        number, end = head >> 9, at + 2 + (head & 0x1FF)
        if number == END or end > len(unit):
            return
        yield number, unit[at + 2 : end]
        at = end


def _identifier(value: bytes, of_mac: int, of_address: int) -> str:
    """The text of an identifier, by its subtype: MACs and addresses as they are written."""
    subtype, body = value[0], value[1:]
    if subtype == of_mac and len(body) == 6:
        return body.hex(":")
    return (_address(body) if subtype == of_address else "") or _text(body)


def _address(value: bytes) -> str:
    """An address behind the number of its family; "" of a family that is none of IP's."""
    family = FAMILIES.get(value[0]) if value else None
    length = 4 if family is AF_INET else 16
    return inet_ntop(family, value[1:]) if family is not None and len(value) == 1 + length else ""


def _text(value: bytes) -> str:
    return on_one_line(value.rstrip(b"\0").decode("utf-8", "replace"))[:MAX_TEXT]


def lldp_frame(mac: str, system: str, nic: str, ttl_s: int, address: str | None, description: str) -> bytes:
    """The frame by which a host tells of itself at one of its NICs, with the fields that XenServer's hosts send: mac: the NIC's; system: the host's name; address: by which hosts reach it."""
    parts = [
        (CHASSIS, bytes((CHASSIS_LOCAL,)) + system.encode()),
        (PORT, bytes((PORT_MAC,)) + mac_bytes(mac)),
        (TTL, ttl_s.to_bytes(2, "big")),
    ]
    if ttl_s:
        parts += [
            (PORT_DESCRIPTION, nic.encode()),
            (SYSTEM_NAME, system.encode()),
            (SYSTEM_DESCRIPTION, description.encode()),
            (CAPABILITIES, BRIDGE.to_bytes(2, "big") * 2),
        ]
        if address is not None:
            packed = ip_address(address).packed
            family = bytes((1 if len(packed) == 4 else 2,))
            # Its length, the address, a number of an interface of which nothing is known (1), no OID (§8.5.9).
            parts.append((ADDRESS, bytes((1 + len(packed),)) + family + packed + b"\x01" + bytes(5)))
    unit = b"".join((number << 9 | len(value)).to_bytes(2, "big") + value for number, value in (*parts, (END, b"")))
    return ethernet(NEAREST_BRIDGE, mac, LLDP_TYPE, unit)
