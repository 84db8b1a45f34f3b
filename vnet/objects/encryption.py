"""Encrypted tunnels: the hosts' WireGuard keys, and the addresses that hosts have inside WireGuard.

One rule: each host has two keys, one for each plane. Each plane is a WireGuard network of its own; while keys of one are
replaced, frames take the other (docs/adr/0028-two-planes-of-wireguard.md).
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import ClassVar

from vnet.grammar.declare import Declared, SetBy, attr
from vnet.grammar.noun import Noun
from vnet.grammar.value_types import Integer, Scalar, ValueRefused
from vnet.objects.carriers import IPV6_MORE_BYTES
from vnet.objects.words import COUNT, HOST_REF, ip_version

PLANES = (0, 1)
KEY_BYTES = 32  # Curve25519
FIRST_PORT = 51840  # UDP, of plane 0; plane 1 has the next
WIREGUARD_BYTES = (
    20 + 8 + 16 + 16
)  # IPv4, UDP, header of a data message, its authentication tag (WireGuard paper §5.4.6)
# Packets with this mark have no other route than to WireGuard, in the kernel and in Open vSwitch (vnet/wireguard): nothing that they carry
# leaves a host in clear, whatever is amiss.
ENCRYPTED_MARK = 0x766E
# The address of a host in both planes: all but the bits of the plane.
HOST_BITS = "ffff:ffff:ffff:0:ffff:ffff:ffff:ffff"
PREFIX_BITS = "ffff:ffff:ffff::"


def wireguard_bytes(vtep: str | None) -> int:
    """The bytes of the underlay's MTU that WireGuard takes, by the family of the VTEP address; None counts as IPv4."""
    return WIREGUARD_BYTES + (IPV6_MORE_BYTES if vtep is not None and ip_version(vtep) == 6 else 0)


@lru_cache(maxsize=1024)
def plane_network(pool_id: str, plane: int) -> IPv6Network:
    """The addresses of a plane: a /64 of the pool's unique local prefix (RFC 4193 §3.1)."""
    globally = b"\xfd" + sha256(f"vnet pool {pool_id}".encode()).digest()[:5]
    return IPv6Network((globally + plane.to_bytes(2, "big") + bytes(8), 64))


@lru_cache(maxsize=65536)
def inner_address(pool_id: str, host: str, plane: int) -> str:
    """The address of a host inside a plane. It follows from its name, so nobody can state another's."""
    host_bits = int.from_bytes(sha256(f"vnet host {host}".encode()).digest()[:8], "big")
    return str(IPv6Address(int(plane_network(pool_id, plane).network_address) | host_bits))


def in_first_plane(pool_id: str, address: str) -> str:
    """The address in plane 0 of the host that has this one in any plane; an address of no plane stays as it is."""
    parsed = ip_address(address)
    for plane in PLANES[1:]:
        if parsed.version == 6 and parsed in plane_network(pool_id, plane):
            host_bits = int(parsed) - int(plane_network(pool_id, plane).network_address)
            return str(IPv6Address(int(plane_network(pool_id, PLANES[0]).network_address) | host_bits))
    return address


def _public_key(text: str) -> str:
    try:
        fine = len(base64.b64decode(text, validate=True)) == KEY_BYTES
    except (binascii.Error, ValueError):
        fine = False
    if not fine or base64.b64encode(base64.b64decode(text)).decode() != text:
        raise ValueRefused("wrong-value", "no public key of WireGuard: 32 bytes in base64")
    return text


@dataclass(frozen=True, slots=True)
class TunnelKey(Declared):
    """The public part of a host's key in one plane. epoch: the pool's when it was made. The private part never leaves the host."""

    NOUN: ClassVar[Noun] = Noun(
        "tunnel-key", "tunnel-keys", "tunnel key", "TunnelKey", "tunnel_keys", key="host", second="plane"
    )
    SET_BY: ClassVar[SetBy] = SetBy.RUNTIME

    host: str = attr(HOST_REF, "The host.")
    plane: int = attr(Integer("a plane", PLANES[0], PLANES[-1]), "The plane.")
    public: str = attr(Scalar("a public key", {"type": "string"}, _public_key), "The public key, in base64.")
    epoch: int = attr(COUNT, "The pool's key epoch that it was made in.", default=0)
