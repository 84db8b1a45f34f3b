"""NICs that a bridge must not take yet: the host itself uses them, and would be cut off.

One rule: only a NIC that is to come into a bridge of ours is looked at, never one that is in it already.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from msgspec.structs import replace

from ovsctl import vswitch
from ovsctl.vswitch.snapshot import Tables

# linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h; pyroute2 would take 0.1 s and 15 MB of every agent for this one question.
RTM_NEWADDR, RTM_GETADDR = 20, 22
NLM_F_REQUEST_DUMP = 0x301
NLMSG_ERROR, NLMSG_DONE = 2, 3
IFA_ADDRESS, IFA_LOCAL = 1, 2
HEADER, IFADDR, ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBBBi"), struct.Struct("=HH")
ANSWER_BYTES = 1 << 16
NO_SUCH_DEVICE = os.strerror(errno.ENODEV)  # in ovs-vswitchd's words
DEFAULT_V4, DEFAULT_V6 = "00000000", "0" * 32


def carried() -> dict[str, list[str]]:
    """The host's own uses of its NICs: '10.0.0.5/24', 'the default route'. Link-local IPv6 is not counted.

    Raises OSError if the kernel does not answer.
    """
    found: dict[str, list[str]] = {}
    for device, text in [*_addresses(), *_default_routes()]:
        found.setdefault(device, []).append(text)
    return found


def _addresses() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        body = IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        kernel.send(HEADER.pack(HEADER.size + len(body), RTM_GETADDR, NLM_F_REQUEST_DUMP, 0, 0) + body)
        names = dict(socket.if_nameindex())
        while True:
            answer = kernel.recv(ANSWER_BYTES)
            while answer:
                size, message_type, *_ = HEADER.unpack_from(answer)
                if message_type == NLMSG_DONE:
                    return found
                if message_type == NLMSG_ERROR:
                    raise OSError(-struct.unpack_from("=i", answer, HEADER.size)[0], "cannot list addresses")
                if message_type == RTM_NEWADDR:
                    index, text = _address(answer[HEADER.size : size])
                    if text and index in names:
                        found.append((names[index], text))
                answer = answer[max(_aligned(size), HEADER.size) :]


def _address(message: bytes) -> tuple[int, str]:
    """(interface's index, '10.0.0.5/24') of a struct ifaddrmsg; "" for a link-local address."""
    _, prefix, _, _, index = IFADDR.unpack_from(message)
    attributes, rest = {}, message[IFADDR.size :]
    while len(rest) >= ATTRIBUTE.size:
        size, attribute = ATTRIBUTE.unpack_from(rest)
        attributes[attribute] = rest[ATTRIBUTE.size : size]
        rest = rest[max(_aligned(size), ATTRIBUTE.size) :]
    raw = attributes.get(IFA_LOCAL, attributes.get(IFA_ADDRESS, b""))  # of a peer-to-peer link ADDRESS is the peer
    if len(raw) not in (4, 16):
        return index, ""
    address: IPv4Address | IPv6Address = ip_address(raw)
    return index, "" if address.version == 6 and address.is_link_local else f"{address}/{prefix}"


def _aligned(size: int) -> int:
    return size + 3 & ~3


def _default_routes() -> list[tuple[str, str]]:
    found = []
    for line in _lines("/proc/net/route"):
        device, destination, *_, mask, _mtu, _window, _irtt = line.split()
        if destination == mask == DEFAULT_V4:
            found.append((device, "the default route"))
    for line in _lines("/proc/net/ipv6_route"):
        destination, prefix, *_, device = line.split()
        if (destination, prefix) == (DEFAULT_V6, "00"):
            found.append((device, "the IPv6 default route"))
    return found


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except FileNotFoundError:  # a kernel without IPv6
        return []


def nics(rows: vswitch.VSwitch) -> dict[str, str]:
    """The host's own devices that are to be in bridges, each with its bridge."""
    return {i.name: b.name for b in rows.bridges for p in b.ports for i in p.interfaces if not i.type}


def in_place(tables: Tables) -> frozenset[tuple[str, str]]:
    """(interface, its bridge) for all that is in bridges already."""
    ports, interfaces = tables["Port"], tables["Interface"]
    return frozenset(
        (interfaces[i]["name"], bridge["name"])
        for bridge in tables["Bridge"].values()
        for port in bridge["ports"]
        if port in ports
        for i in ports[port]["interfaces"]
        if i in interfaces
    )


def errors(rows: vswitch.VSwitch, tables: Tables) -> dict[str, str]:
    """The problems of interfaces of ours, by 'interface eth1'.

    A NIC is set up by the host's own configuration. ovs-vswitchd, which makes it promiscuous as it takes it, reads its flags and
    writes them back, so one that is set up in that very moment may end down.
    """
    wanted = {i.name for bridge in rows.bridges for port in bridge.ports for i in port.interfaces}
    bridges, found = nics(rows), {}
    for row in tables["Interface"].values():
        name, text = row["name"], row["error"]
        if name in wanted and text:
            if name in bridges and NO_SUCH_DEVICE in text:
                text = f"this host has no NIC {name}, so {bridges[name]} is without it until it appears ({text})"
            found[f"interface {name}"] = text
        elif name in bridges and row["admin_state"] == "down":
            found[f"interface {name}"] = f"NIC {name} is down, so nothing passes it: ip link set {name} up"
    return found


def hold_back(
    rows: vswitch.VSwitch, new: frozenset[str], used: Mapping[str, list[str]]
) -> tuple[vswitch.VSwitch, dict[str, str]]:
    """The rows without those `new` NICs that the host uses, and why by 'interface eth1'. Pure."""
    held = {nic: bridge for nic, bridge in nics(rows).items() if nic in new and nic in used}
    problems = {
        f"interface {nic}": f"NIC {nic} carries {' and '.join(used[nic])}: move "
        f"{'it' if len(used[nic]) == 1 else 'them'} to {bridge} first, or take {nic} out of the uplink; "
        "until then it is left alone, so that the host stays reachable"
        for nic, bridge in held.items()
    }
    return _without_nics(rows, held), problems


def hold_back_unseen(rows: vswitch.VSwitch, new: frozenset[str]) -> tuple[vswitch.VSwitch, dict[str, str]]:
    """The rows without those `new` NICs, of a host whose addresses the agent cannot see, and why by 'interface eth1'. Pure."""
    held = {nic: bridge for nic, bridge in nics(rows).items() if nic in new}
    problems = {
        f"interface {nic}": f"the agent of this host runs on another machine, and cannot see whether NIC {nic} carries the host's address: "
        f"put it into a bridge there, and name that as the uplink's bridge; or 'ovs-vsctl add-br {bridge} -- add-port {bridge} {nic}'"
        for nic, bridge in held.items()
    }
    return _without_nics(rows, held), problems


def _without_nics(rows: vswitch.VSwitch, held: Mapping[str, str]) -> vswitch.VSwitch:
    if not held:
        return rows
    return replace(
        rows, bridges=tuple(replace(bridge, ports=tuple(_without(bridge.ports, held))) for bridge in rows.bridges)
    )


def _without(ports: tuple[vswitch.Port, ...], held: Mapping[str, str]) -> list[vswitch.Port]:
    kept = []
    for port in ports:
        members = tuple(member for member in port.interfaces if member.name not in held)
        if members:
            kept.append(port if len(members) == len(port.interfaces) else replace(port, interfaces=members))
    return kept
